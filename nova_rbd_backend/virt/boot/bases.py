# SPDX-License-Identifier: Apache-2.0

"""Make a base in the pool unless it exists, and clone disks from it.

The first boot of an image copies its data for all hosts. Other boots, on this
host and on others, wait for it. Nova fetches and checks the image. A raw image
is written into the pool meanwhile. The file of another one is on the local
disk only until it has been converted into the pool. Both are done only if the
disk that the image was fetched for is big enough. Otherwise users could fill
the pool with images that they may not boot.
"""

import collections
import contextlib
import dataclasses
import enum
import math
import os
import random
import time
from collections.abc import Callable, Mapping

from nova import exception
from nova.compute import utils as compute_utils
from oslo_concurrency import lockutils
from oslo_log import log as logging
from oslo_utils import units

from nova_rbd_backend import errors, names
from nova_rbd_backend.ceph.incoming import Incoming
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage.bases import make as bases
from nova_rbd_backend.storage.disks import provision
from nova_rbd_backend.virt import edge
from nova_rbd_backend.virt.boot import fetch, glance_image, staging
from nova_rbd_backend.virt.boot.beside import Beside
from nova_rbd_backend.virt.boot.glance_image import WantedBase

LOG = logging.getLogger(__name__)

#: Makes a raw file at this path, from data that Nova fetches and checks.
Prepare = Callable[[str], None]
#: Raises an error if a virtual disk of this many bytes is too big.
Verify = Callable[[int], None]

# A thousand hosts may wait for one maker. So each asks less often the longer
# it waits, and at another moment than the others.
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 4.0
_GROWTH = 1.3
_SPREAD = 0.25
# How often a host that waits asks for the right to make the base, in case the
# maker has failed or died. Otherwise it only looks for the base.
_MAKER_SECONDS = 10
#: How long to wait for a maker that is alive: terabytes take hours.
_LONGEST_WAIT_SECONDS = 12 * 3600
# A base may be aged out between two steps, though this is rare.
_ATTEMPTS = 3
_MOST_SIZES = 10_000

# Sizes of virtual disks, by the names of their bases, so that an image that
# was refused is not fetched again. The oldest are forgotten.
_sizes: collections.OrderedDict[str, int] = collections.OrderedDict()


@dataclasses.dataclass(frozen=True)
class Base:
    """:ivar size_bytes: of the virtual disk
    :ivar made: this call has made it
    """

    size_bytes: int
    made: bool


class _Awaited(enum.Enum):
    """What a boot waits for, whose base has to be made."""

    MAKER = "another host that makes it"
    SLOT = "the imports of this one"


class BaseImages:
    """The bases of one pool.

    A pool has one base of an image, however many classes use the pool. The
    base is made with the options of the class that needs it first.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def clone(
        self,
        wanted: WantedBase,
        prepare: Prepare,
        verify: Verify,
        disk: str,
        size_bytes: int | None,
        metadata: Mapping[str, str],
        old_kept_seconds: int | None = None,
        passphrase: bytes | None = None,
    ) -> provision.Provisioned:
        """Clone a disk from a base, which is made if it does not exist.

        :param passphrase: encrypt the disk
        :param old_kept_seconds: replace the disk if it exists, and keep it in
            the trash for so long; None: only grow it
        """
        for _attempt in range(_ATTEMPTS):
            verify(self.ensure(wanted, prepare, verify).size_bytes)
            parent = wanted
            if passphrase is not None:
                parent = self.ensure_for_encrypted(
                    bases.snap(self._pool, wanted.name)
                )
            made = self._clone_from(
                *(parent.name, disk, size_bytes, metadata, old_kept_seconds),
                passphrase,
            )
            if made is not None:
                return made
        raise exception.StorageError(
            reason=f"base {self._pool}/{wanted.name} was removed "
            f"{_ATTEMPTS} times while {disk} was made of it"
        )

    def ensure_for_encrypted(self, parent: names.SnapPath) -> WantedBase:
        """Have a base for encrypted disks that share a parent's data.

        The parent is found to be too big, or not, before.
        """
        wanted = glance_image.base_of_encrypted(self._pool, parent)
        self.ensure(wanted, lambda _path: None, lambda _bytes: None)
        return wanted

    def _clone_from(
        self,
        base: str,
        disk: str,
        size_bytes: int | None,
        metadata: Mapping[str, str],
        old_kept_seconds: int | None,
        passphrase: bytes | None,
    ) -> provision.Provisioned | None:
        """Clone a disk from a base; None: there is no such base."""
        snap = bases.snap(self._pool, base)

        def clone() -> provision.Provisioned | None:
            try:
                return provision.clone_disk(
                    self._pool,
                    disk,
                    snap,
                    size_bytes,
                    metadata,
                    old_kept_seconds=old_kept_seconds,
                    passphrase=passphrase,
                )
            except errors.NotFound as error:
                if error.image != base:
                    raise
                return None

        # A dead client of the old disk is waited for.
        return edge.run(clone, waits=old_kept_seconds is not None)

    def find(self, wanted: WantedBase) -> Base | None:
        """Return the base; None: it does not exist."""
        size_bytes = edge.run(
            lambda: bases.size_bytes(self._pool, wanted.name)
        )
        return None if size_bytes is None else Base(size_bytes, made=False)

    def ensure(
        self, wanted: WantedBase, prepare: Prepare, verify: Verify
    ) -> Base:
        """Return the base, which is made if it does not exist.

        A base that exists is returned whatever its size is.
        """
        if found := self.find(wanted):
            return found
        until = time.monotonic() + _LONGEST_WAIT_SECONDS
        with lockutils.lock(f"nova-rbd-{self._pool}-{wanted.name}"):
            pause = _FIRST_PAUSE_SECONDS
            asked_at = logged_at = -math.inf
            while True:
                base: Base | _Awaited
                if time.monotonic() - asked_at < _MAKER_SECONDS:
                    base = self.find(wanted) or _Awaited.MAKER
                else:
                    base = self._find_or_make(wanted, prepare, verify)
                    if base is _Awaited.MAKER:
                        asked_at = time.monotonic()
                if isinstance(base, Base):
                    return base
                now = time.monotonic()
                if now > until:
                    raise self._not_made(wanted)
                if now - logged_at >= fetch.LOG_SECONDS:
                    self._log_waiting(wanted, base)
                    logged_at = now
                if base is _Awaited.MAKER:
                    spread = random.uniform(1 - _SPREAD, 1)  # noqa: S311
                    time.sleep(pause * spread)
                    pause = min(_GROWTH * pause, _LONGEST_PAUSE_SECONDS)

    def _find_or_make(
        self, wanted: WantedBase, prepare: Prepare, verify: Verify
    ) -> Base | _Awaited:
        """Find or make the base, or return what to wait for.

        A slot of this host has been waited for, but not for long: another host
        may have made the base meanwhile.
        """
        if found := self.find(wanted):
            return found
        if known_bytes := _sizes.get(wanted.name):
            verify(known_bytes)
        with contextlib.ExitStack() as stack:
            slot = fetch.slot(_LONGEST_PAUSE_SECONDS)
            if wanted.is_fetched and not stack.enter_context(slot):
                return _Awaited.SLOT
            attempt = edge.run(
                lambda: bases.begin(self._pool, wanted.name),
                # What a dead maker left may be busy for a while.
                waits=True,
            )
            if attempt is None:
                return _Awaited.MAKER
            try:
                if wanted.parent is not None:
                    made = self._make_of_parent(attempt, wanted)
                else:
                    made = self._make(attempt, wanted, prepare, verify)
                return made or _Awaited.MAKER
            except BaseException:
                edge.run(lambda: bases.give_up(attempt))
                raise

    def _make_of_parent(
        self, attempt: bases.BaseAttempt, wanted: WantedBase
    ) -> Base | None:
        """See _make()."""
        parent = wanted.parent
        assert parent is not None
        try:
            made = edge.run(
                lambda: bases.finish(self._pool, attempt, parent, wanted.facts)
            )
        except errors.TakenOver:
            return None
        return Base(made.size_bytes, made=True)

    def _make(
        self,
        attempt: bases.BaseAttempt,
        wanted: WantedBase,
        prepare: Prepare,
        verify: Verify,
    ) -> Base | None:
        """Make the base; None: another process took us for dead, and does."""
        workers = edge.settings().import_workers

        def finish(source: str | Incoming) -> bases.MadeBase | None:
            try:
                with staged.refused_if_damaged(wanted.image_id):
                    return bases.finish(
                        self._pool,
                        attempt,
                        source,
                        wanted.facts,
                        progress,
                        workers,
                        staged.packed,
                    )
            except errors.TakenOver:
                return None

        def fetched() -> None:
            prepare(staged.path)
            found_bytes = os.path.getsize(staged.path)
            _remember(wanted.name, found_bytes)
            verify(found_bytes)

        def import_beside(incoming: Incoming) -> bases.MadeBase | None:
            return edge.run(lambda: finish(incoming), long=True)

        what = f"Base {wanted.name}"
        # If the image is not fetched as a stream, this is not begun.
        beside = Beside(wanted.raw_bytes or 0, import_beside)
        with (
            staging.staged_file(wanted.name) as staged,
            fetch.progress_logged(what, staged.path) as progress,
        ):
            if wanted.raw_bytes:
                verify(wanted.raw_bytes)
                staged.beside = beside
            beside.feed(fetched)
            if beside.begun:
                made = beside.result()
            else:
                with compute_utils.disk_ops_semaphore:
                    path = staged.data_path
                    made = edge.run(lambda: finish(path), long=True)
        if made is None:
            return None
        LOG.info(
            "Made base %(pool)s/%(base)s (%(size)d bytes, %(copied).1f MiB "
            "copied) in %(seconds).3f s",
            {
                "pool": self._pool,
                "base": made.name,
                "size": made.size_bytes,
                "copied": made.bytes_written / units.Mi,
                "seconds": made.seconds,
            },
        )
        return Base(made.size_bytes, made=True)

    def _log_waiting(self, wanted: WantedBase, awaited: _Awaited) -> None:
        LOG.info(
            "Base %s/%s: waiting for %s",
            self._pool,
            wanted.name,
            awaited.value,
        )

    def _not_made(self, wanted: WantedBase) -> exception.StorageError:
        return exception.StorageError(
            reason=f"base {self._pool}/{wanted.name} is still being made by "
            f"another host after {_LONGEST_WAIT_SECONDS} s"
        )


def _remember(base: str, size_bytes: int) -> None:
    _sizes[base] = size_bytes
    if len(_sizes) > _MOST_SIZES:
        _sizes.popitem(last=False)
