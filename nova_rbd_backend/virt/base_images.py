# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""Make a base in the pool unless it is there, and clone disks from it.

The first boot of an image copies its bytes, for all hosts; on one host the
others wait for it, and so do other hosts. What Nova fetches, checks and
converts lies on the local disk only until it is in the pool.
"""

import contextlib
import functools
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping

import nova.conf
import tenacity
from nova import exception
from nova.compute import utils as compute_utils
from oslo_concurrency import lockutils
from oslo_log import log as logging
from oslo_utils import units

from nova_rbd_backend import conf
from nova_rbd_backend.storage import base_cache, provision
from nova_rbd_backend.virt import base_pool, rbd_utils, staging
from nova_rbd_backend.virt.image_source import WantedBase

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

#: Makes what Nova has at this path, raw and checked.
Fetch = Callable[[str], None]
#: Refuses a virtual disk of so many bytes.
Verify = Callable[[int], None]

_POLL_SECONDS = 0.5
_TELL_SECONDS = 10
#: Of a maker that is alive: terabytes take hours.
_LONGEST_WAIT_SECONDS = 12 * 3600
# A base may be aged out between two steps, which is seldom enough once.
_ATTEMPTS = 3


@contextlib.contextmanager
def import_slot(limit_seconds: float | None = None) -> Iterator[bool]:
    """Hold one of the host's few imports, from its download to its end.

    :param limit_seconds: how long to wait for one; None: as long as it takes
    :returns: False: none was free so long
    """
    slots = _slots(conf.settings(CONF).import_at_once)
    got = slots.acquire(timeout=limit_seconds)
    try:
        yield got
    finally:
        if got:
            slots.release()


@functools.cache
def _slots(count: int) -> threading.BoundedSemaphore:
    # Green under eventlet.
    return threading.BoundedSemaphore(count)


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
        """Clone a disk from a base, which is made if it is not there."""
        for _attempt in range(_ATTEMPTS):
            self.ensure(wanted, fetch, verify)
            facts = self._storage.clone_from(
                wanted.name, disk, size_bytes, metadata
            )
            if facts is not None:
                return facts
        raise exception.StorageError(
            reason=f"base {self._storage.pool}/{wanted.name} was removed "
            f"{_ATTEMPTS} times while {disk} was made of it"
        )

    def ensure(self, wanted: WantedBase, fetch: Fetch, verify: Verify) -> bool:
        """Have the base; whether it was made now, by this call."""
        if self.is_there(wanted, verify):
            return False
        with lockutils.lock(f"nova-rbd-{self._storage.pool}-{wanted.name}"):
            attempts = tenacity.Retrying(
                retry=tenacity.retry_if_result(lambda made: made is None),
                stop=tenacity.stop_after_delay(_LONGEST_WAIT_SECONDS),
                wait=tenacity.wait_fixed(_POLL_SECONDS),
                before_sleep=functools.partial(self._tell_waiting, wanted),
            )
            try:
                made = attempts(self._is_there_or_made, wanted, fetch, verify)
            except tenacity.RetryError as error:
                raise exception.StorageError(
                    reason=f"base {self._storage.pool}/{wanted.name} is still "
                    f"being made by another host after "
                    f"{_LONGEST_WAIT_SECONDS} s"
                ) from error
        return bool(made)

    def is_there(self, wanted: WantedBase, verify: Verify) -> bool:
        """Whether the base is there, and what is wanted of its size."""
        size_bytes = self._storage.size_of(wanted.name)
        if size_bytes is None:
            return False
        verify(size_bytes)
        return True

    def _is_there_or_made(
        self, wanted: WantedBase, fetch: Fetch, verify: Verify
    ) -> bool | None:
        """False: it is there, True: it is made; None: to be looked at again.

        Another process makes it, or this host is at enough already.
        """
        if self.is_there(wanted, verify):
            return False
        slot: contextlib.AbstractContextManager[bool]
        slot = contextlib.nullcontext(True)
        if wanted.is_fetched:
            slot = import_slot(_POLL_SECONDS)
        with slot as got:
            making = self._storage.begin(wanted.name) if got else None
            if making is None:
                return None
            try:
                return self._make(making, wanted, fetch, verify) or None
            except BaseException:
                self._storage.give_up(making)
                raise

    def _make(
        self,
        making: base_cache.Making,
        wanted: WantedBase,
        fetch: Fetch,
        verify: Verify,
    ) -> bool:
        """Make it; False: another process took us for dead and does."""
        with (
            staging.file(wanted.name) as path,
            _progress(wanted.name, path) as progress,
        ):
            fetch(path)
            verify(os.path.getsize(path))
            with compute_utils.disk_ops_semaphore:
                made = self._storage.finish(
                    making, path, wanted.facts, progress
                )
        if made is None:
            return False
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
        return True

    def _tell_waiting(
        self, wanted: WantedBase, state: tenacity.RetryCallState
    ) -> None:
        every = round(_TELL_SECONDS / _POLL_SECONDS)
        if state.attempt_number % every == 1:
            LOG.info(
                "Base %s/%s: waiting for another host that makes it, or for "
                "the imports of this one",
                self._storage.pool,
                wanted.name,
            )


@contextlib.contextmanager
def _progress(name: str, path: str) -> Iterator[Callable[[int], None]]:
    """Log how far a base is that takes long to make.

    What it lends is called in a native thread, which may not log.
    """
    ended = threading.Event()
    imported = [0]
    begun = time.monotonic()

    def set_imported(done_bytes: int) -> None:
        imported[0] = done_bytes

    def tell() -> None:
        while not ended.wait(_TELL_SECONDS):
            LOG.info(
                "Base %(base)s after %(seconds)d s: %(state)s",
                {
                    "base": name,
                    "seconds": time.monotonic() - begun,
                    "state": _state(path, imported[0]),
                },
            )

    thread = threading.Thread(target=tell, name="nova-rbd-tell", daemon=True)
    thread.start()
    try:
        yield set_imported
    finally:
        ended.set()
        thread.join()


def _state(path: str, imported_bytes: int) -> str:
    if imported_bytes:
        return f"imported {imported_bytes >> 20} MiB"
    for ending, doing in ((".converted", "converted"), (".part", "fetched")):
        with contextlib.suppress(FileNotFoundError):
            blocks = os.stat(path + ending).st_blocks
            return f"{doing} {blocks * 512 >> 20} MiB"
    return "begun"
