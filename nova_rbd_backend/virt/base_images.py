# SPDX-License-Identifier: Apache-2.0

"""Make a base in the pool unless it is there, and clone disks from it.

The first boot of an image copies its bytes, for all hosts; on one host the
others wait for it, and so do other hosts. What Nova fetches, checks and
converts lies on the local disk only until it is in the pool.
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from typing import cast

import nova.conf
import tenacity
from nova import exception
from nova.compute import utils as compute_utils
from oslo_concurrency import lockutils
from oslo_log import log as logging
from oslo_utils import units

from nova_rbd_backend.storage import base_cache, provision
from nova_rbd_backend.virt import base_pool, imports, rbd_utils, staging
from nova_rbd_backend.virt.image_source import WantedBase

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

#: Makes what Nova has at this path, raw and checked.
Fetch = Callable[[str], None]
#: Refuses a virtual disk of so many bytes.
Verify = Callable[[int], None]

_POLL_SECONDS = 0.5
#: Of a maker that is alive: terabytes take hours.
_LONGEST_WAIT_SECONDS = 12 * 3600
# A base may be aged out between two steps, which is seldom enough once.
_ATTEMPTS = 3


@dataclasses.dataclass(frozen=True)
class Base:
    """A base that is there.

    :ivar size_bytes: of the virtual disk
    :ivar made: now, by this call
    """

    size_bytes: int
    made: bool


class BaseImages:
    """The bases of one pool."""

    def __init__(self, place: rbd_utils.RBDDriver) -> None:
        """Take where the disks are to be.

        A pool has one base of an image, whatever classes it serves: made as
        the class says that is the first to want it.
        """
        self._storage = base_pool.BasePool(pool=place.pool)
        self._storage.storage_class = place.storage_class

    def clone(
        self,
        wanted: WantedBase,
        fetch: Fetch,
        verify: Verify,
        disk: str,
        size_bytes: int | None,
        metadata: Mapping[str, str],
    ) -> provision.Facts:
        """Clone a disk from a base, which is made if it is not there.

        It is made for the next one even if this disk may not be so big.
        """
        for _attempt in range(_ATTEMPTS):
            verify(self.ensure(wanted, fetch).size_bytes)
            facts = self._storage.clone_from(
                wanted.name, disk, size_bytes, metadata
            )
            if facts is not None:
                return facts
        raise exception.StorageError(
            reason=f"base {self._storage.pool}/{wanted.name} was removed "
            f"{_ATTEMPTS} times while {disk} was made of it"
        )

    def find(self, wanted: WantedBase) -> Base | None:
        """Find the base; None: it is not there."""
        size_bytes = self._storage.size_of(wanted.name)
        return None if size_bytes is None else Base(size_bytes, made=False)

    def ensure(self, wanted: WantedBase, fetch: Fetch) -> Base:
        """Have the base: found, or made by the first one to want it."""
        if found := self.find(wanted):
            return found
        until = time.monotonic() + _LONGEST_WAIT_SECONDS
        with lockutils.lock(f"nova-rbd-{self._storage.pool}-{wanted.name}"):
            attempts = tenacity.Retrying(
                retry=tenacity.retry_if_result(lambda base: base is None),
                stop=lambda _state: time.monotonic() > until,
                wait=tenacity.wait_fixed(_POLL_SECONDS),
                before_sleep=functools.partial(self._tell_waiting, wanted),
            )
            try:
                base = attempts(self._find_or_make, wanted, fetch)
            except tenacity.RetryError as error:
                raise exception.StorageError(
                    reason=f"base {self._storage.pool}/{wanted.name} is still "
                    f"being made by another host after "
                    f"{_LONGEST_WAIT_SECONDS} s"
                ) from error
        # None is what it was tried again for.
        return cast(Base, base)

    def _find_or_make(self, wanted: WantedBase, fetch: Fetch) -> Base | None:
        """Find or make it; None: it is to be looked at again.

        Another process makes it, or this host is at enough already.
        """
        if found := self.find(wanted):
            return found
        slot: contextlib.AbstractContextManager[bool]
        slot = contextlib.nullcontext(True)
        if wanted.is_fetched:
            slot = imports.slot(_POLL_SECONDS)
        with slot as got:
            making = self._storage.begin(wanted.name) if got else None
            if making is None:
                return None
            try:
                return self._make(making, wanted, fetch)
            except BaseException:
                self._storage.give_up(making)
                raise

    def _make(
        self, making: base_cache.Making, wanted: WantedBase, fetch: Fetch
    ) -> Base | None:
        """Make it; None: another process took us for dead and does."""
        with (
            staging.file(wanted.name) as path,
            imports.told(f"Base {wanted.name}", path) as progress,
        ):
            fetch(path)
            with compute_utils.disk_ops_semaphore:
                made = self._storage.finish(
                    making, path, wanted.facts, progress
                )
        if made is None:
            return None
        LOG.info(
            "Made base %(pool)s/%(base)s (%(size)d bytes, %(copied).1f MiB "
            "copied) in %(seconds).3f s",
            {
                "pool": self._storage.pool,
                "base": made.name,
                "size": made.size_bytes,
                "copied": made.bytes_written / units.Mi,
                "seconds": made.seconds,
            },
        )
        return Base(made.size_bytes, made=True)

    def _tell_waiting(
        self, wanted: WantedBase, state: tenacity.RetryCallState
    ) -> None:
        every = round(imports.TELL_SECONDS / _POLL_SECONDS)
        if state.attempt_number % every == 1:
            LOG.info(
                "Base %s/%s: waiting for another host that makes it, or for "
                "the imports of this one",
                self._storage.pool,
                wanted.name,
            )
