# SPDX-License-Identifier: Apache-2.0

"""Make a base in the pool unless it exists, and clone disks from it.

The first boot of an image copies its bytes, for all hosts; other boots wait
for it, on this host and on others. What Nova fetches, checks and converts lies
on the local disk only until it is in the pool.
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from typing import cast

import tenacity
from nova import exception
from nova.compute import utils as compute_utils
from oslo_concurrency import lockutils
from oslo_log import log as logging
from oslo_utils import units

from nova_rbd_backend import errors
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage.bases import make as bases
from nova_rbd_backend.storage.disks import provision
from nova_rbd_backend.virt import edge
from nova_rbd_backend.virt.boot import fetch
from nova_rbd_backend.virt.boot.glance_image import WantedBase

LOG = logging.getLogger(__name__)

#: Makes a raw file at this path, of what Nova has fetched and checked.
Fetch = Callable[[str], None]
#: Refuses a virtual disk of so many bytes.
Verify = Callable[[int], None]

_POLL_SECONDS = 0.5
#: For a living maker: terabytes take hours.
_LONGEST_WAIT_SECONDS = 12 * 3600
# A base may be aged out between two steps, which seldom happens even once.
_ATTEMPTS = 3


@dataclasses.dataclass(frozen=True)
class Base:
    """A base that exists.

    :ivar size_bytes: of the virtual disk
    :ivar made: now, by this call
    """

    size_bytes: int
    made: bool


class BaseImages:
    """The bases of one pool."""

    def __init__(self, pool: Pool) -> None:
        """Take the pool of the disks.

        A pool has one base of an image, whatever classes use the pool: it is
        made with the options of the class that needs it first.
        """
        self._pool = pool

    def clone(
        self,
        wanted: WantedBase,
        prepare: Fetch,
        verify: Verify,
        disk: str,
        size_bytes: int | None,
        metadata: Mapping[str, str],
    ) -> provision.Provisioned:
        """Clone a disk from a base, which is made if it does not exist.

        The base is made for later disks, even if this disk may not be so big.
        """
        for _attempt in range(_ATTEMPTS):
            verify(self.ensure(wanted, prepare).size_bytes)
            made = self._clone_from(wanted.name, disk, size_bytes, metadata)
            if made is not None:
                return made
        raise exception.StorageError(
            reason=f"base {self._pool}/{wanted.name} was removed "
            f"{_ATTEMPTS} times while {disk} was made of it"
        )

    def _clone_from(
        self,
        base: str,
        disk: str,
        size_bytes: int | None,
        metadata: Mapping[str, str],
    ) -> provision.Provisioned | None:
        """Clone a disk from a base; None: there is no such base."""

        def clone() -> provision.Provisioned | None:
            try:
                return provision.clone_disk(
                    self._pool,
                    disk,
                    bases.snap(self._pool, base),
                    size_bytes,
                    metadata,
                )
            except errors.NotFound as error:
                if error.image != base:
                    raise
                return None

        return edge.run(clone)

    def find(self, wanted: WantedBase) -> Base | None:
        """Return the base; None: it does not exist."""
        size_bytes = edge.run(
            lambda: bases.size_bytes(self._pool, wanted.name)
        )
        return None if size_bytes is None else Base(size_bytes, made=False)

    def ensure(self, wanted: WantedBase, prepare: Fetch) -> Base:
        """Return the base, which is made if it does not exist."""
        if found := self.find(wanted):
            return found
        until = time.monotonic() + _LONGEST_WAIT_SECONDS
        with lockutils.lock(f"nova-rbd-{self._pool}-{wanted.name}"):
            attempts = tenacity.Retrying(
                retry=tenacity.retry_if_result(lambda base: base is None),
                stop=lambda _state: time.monotonic() > until,
                wait=tenacity.wait_fixed(_POLL_SECONDS),
                before_sleep=functools.partial(self._log_waiting, wanted),
            )
            try:
                base = attempts(self._find_or_make, wanted, prepare)
            except tenacity.RetryError as error:
                raise exception.StorageError(
                    reason=f"base {self._pool}/{wanted.name} is still "
                    f"being made by another host after "
                    f"{_LONGEST_WAIT_SECONDS} s"
                ) from error
        # It is tried again as long as it is None.
        return cast(Base, base)

    def _find_or_make(self, wanted: WantedBase, prepare: Fetch) -> Base | None:
        """Find or make the base; None: it is to be tried again.

        Another process makes it, or this host copies as many as it may.
        """
        if found := self.find(wanted):
            return found
        slot: contextlib.AbstractContextManager[bool]
        slot = contextlib.nullcontext(True)
        if wanted.is_fetched:
            slot = fetch.slot(_POLL_SECONDS)
        with slot as got:
            attempt = self._begin(wanted) if got else None
            if attempt is None:
                return None
            try:
                return self._make(attempt, wanted, prepare)
            except BaseException:
                edge.run(lambda: bases.give_up(attempt))
                raise

    def _begin(self, wanted: WantedBase) -> bases.BaseAttempt | None:
        return edge.run(
            lambda: bases.begin(self._pool, wanted.name),
            # What a dead maker left may be busy for a while.
            long=True,
        )

    def _make(
        self, attempt: bases.BaseAttempt, wanted: WantedBase, prepare: Fetch
    ) -> Base | None:
        """Make the base; None: another process took us for dead, and does."""
        with (
            fetch.staged_file(wanted.name) as path,
            fetch.told(f"Base {wanted.name}", path) as progress,
        ):
            prepare(path)
            with compute_utils.disk_ops_semaphore:
                made = self._finish(attempt, path, wanted, progress)
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

    def _finish(
        self,
        attempt: bases.BaseAttempt,
        path: str,
        wanted: WantedBase,
        progress: Callable[[int], None],
    ) -> bases.MadeBase | None:
        workers = edge.settings().import_workers

        def finish() -> bases.MadeBase | None:
            try:
                return bases.finish(
                    self._pool, attempt, path, wanted.facts, progress, workers
                )
            except errors.TakenOver:
                return None

        return edge.run(finish, long=True)

    def _log_waiting(
        self, wanted: WantedBase, state: tenacity.RetryCallState
    ) -> None:
        every = round(fetch.TELL_SECONDS / _POLL_SECONDS)
        if state.attempt_number % every == 1:
            LOG.info(
                "Base %s/%s: waiting for another host that makes it, or for "
                "the imports of this one",
                self._pool,
                wanted.name,
            )
