# SPDX-License-Identifier: Apache-2.0

"""End calls that wait for an exclusive lock which its owner keeps.

librbd asks the owner to release the lock or to do the work, and asks again for
as long as the owner watches the image (ImageWatcher::handle_request_lock, 16.2
to 20). Nothing limits that if the owner has a watch but does not act, because
its threads hang or its writes find no end.

librbd cannot cancel such a call, and it must not do its work hours later. The
client of this process is therefore put on Ceph's blocklist: the call fails at
once, and nothing that it has sent is done any more. All other calls over that
connection fail as well, and only those within once_more are repeated. The next
use of the cluster opens a new connection.
"""

import contextlib
import time
from collections.abc import Callable, Iterator

from nova_rbd_backend import errors, threads
from nova_rbd_backend.ceph.access import Access
from nova_rbd_backend.ceph.connection import Connection
from nova_rbd_backend.ceph.directory import Directory
from nova_rbd_backend.ceph.holders import Holders, Lock

# How often a wait is looked at whose limit has been put off.
_SHORTEST_LOOK_SECONDS = 0.1


class LockWait:
    """A call that may be waiting for a lock.

    :ivar owner: the client whose lock was waited for in vain
    """

    def __init__(self) -> None:
        self.owner: int | None = None
        self._since = time.monotonic()
        self._done = threads.original_threading().Event()
        self._cutting = threads.original_threading().Lock()

    def restart(self) -> None:
        """Begin the limit again: the call makes progress."""
        self._since = time.monotonic()

    def end(self) -> None:
        self._done.set()

    def cut_off(self, owner: int, cut: Callable[[], None]) -> None:
        """Cut the call off, unless it has ended."""
        with self._cutting:
            if not self._done.is_set():
                cut()
                self.owner = owner

    def await_cut_off(self, seconds: float) -> None:
        """Wait for a cut-off that has begun before the call ended."""
        if self._cutting.acquire(timeout=seconds):
            self._cutting.release()

    def is_longer_than(self, seconds: float) -> bool:
        """Wait until the limit is reached; False: the call has ended."""
        while (left := self._since + seconds - time.monotonic()) > 0:
            if self._done.wait(max(left, _SHORTEST_LOOK_SECONDS)):
                return False
        return not self._done.is_set()


class LockWaits:
    """The waits for the locks of a pool's images.

    :param parents_locks: called with an image's id; returns the locks of the
        image that it is a clone of
    """

    def __init__(
        self,
        access: Access,
        holders: Holders,
        directory: Directory,
        parents_locks: Callable[[str], tuple[Lock, ...]],
    ):
        self._access = access
        self._holders = holders
        self._directory = directory
        self._parents_locks = parents_locks

    @contextlib.contextmanager
    def limited(
        self,
        operation: str,
        connection: Connection,
        image: str | None = None,
        image_id: str | None = None,
        with_parent: bool = False,
    ) -> Iterator[LockWait]:
        """Limit how long a call within waits for another client's lock.

        The limit is that of a request. A call that works itself, and has the
        lock or needs none, is not limited.

        :param image: the image's name; or else its id
        :param with_parent: the call may need the lock of the image's parent,
            too. It has to call restart() when it makes progress
        :raises DiskBusy: the owner of the lock does not act
        """
        wait = LockWait()
        limit = self._access.cluster.settings.operation_timeout_seconds
        if not limit:
            yield wait
            return

        def cut() -> None:
            self._access.cluster.cut_off(connection)

        def watch() -> None:
            while wait.is_longer_than(limit):
                with contextlib.suppress(errors.StorageError):
                    owner = self._owner(
                        connection, image, image_id, with_parent
                    )
                    if owner is not None:
                        wait.cut_off(owner, cut)
                        return
                wait.restart()

        threading = threads.original_threading()
        threading.Thread(
            target=watch, name="nova-rbd-lock-wait", daemon=True
        ).start()
        try:
            yield wait
        except errors.StorageError as error:
            wait.end()
            wait.await_cut_off(limit)
            if wait.owner is None:
                raise
            whose = "its or its parent's" if with_parent else "its"
            raise errors.DiskBusy(
                f"client.{wait.owner} has {whose} exclusive lock and neither "
                f"released it nor did the work within {limit} s",
                operation=operation,
                pool=str(self._access),
                image=image or image_id,
            ) from error
        finally:
            wait.end()

    def _owner(
        self,
        connection: Connection,
        image: str | None,
        image_id: str | None,
        with_parent: bool = False,
    ) -> int | None:
        """Return the other client that has such a lock, or None."""
        if image_id is None:
            image_id = self._directory.image_id(str(image))
        if image_id is None:
            return None
        cluster = self._access.cluster
        with cluster.reach("get our client id", connection):
            own_id = connection.handle.get_instance_id()
        locks = self._holders.locks(image_id)
        if with_parent:
            with contextlib.suppress(errors.NotFound, errors.NotPermitted):
                locks += self._parents_locks(image_id)
        others = (each.client_id for each in locks)
        return next((each for each in others if each != own_id), None)
