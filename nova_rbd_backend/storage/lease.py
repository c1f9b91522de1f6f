# SPDX-License-Identifier: Apache-2.0

"""An exclusive right in a pool that ends soon after its holder does.

The OSD keeps it and its time, so that no two hosts' clocks are compared. A
thread renews it as long as the process lives. It spares double work and no
more: who has lost it without knowing must not be able to do harm.
"""

import contextlib
import os
import socket
import uuid
from typing import TYPE_CHECKING

from nova_rbd_backend import errors
from nova_rbd_backend.storage import offload
from nova_rbd_backend.storage.pool import Pool

if TYPE_CHECKING:
    from nova_rbd_backend.storage.cluster import Connection

#: In the pool, with one lock (cls_lock) for each lease.
OBJECT = "nova_rbd_leases"
#: Nobody waits longer for a dead holder.
SECONDS = 30
_RENEW_SECONDS = 8.0


class Lease:
    """A right that is held until :meth:`end`.

    :ivar cookie: tells it from others of this process
    :ivar connection: RADOS knows a holder by its connection, and the process
        may get a new one meanwhile
    :ivar lost: it ran out, as Ceph was away so long, and another took it
    """

    def __init__(
        self, pool: Pool, name: str, cookie: str, connection: "Connection"
    ):
        self._pool = pool
        self._name = name
        self.cookie = cookie
        self.connection = connection
        self.lost = False
        threading = offload.original_threading()
        self._ending = threading.Event()
        self._thread = threading.Thread(
            target=self._renew, name="nova-rbd-lease", daemon=True
        )
        self._thread.start()

    def _renew(self) -> None:
        while not self._ending.wait(_RENEW_SECONDS):
            # Ceph may be back for the next try.
            with contextlib.suppress(errors.StorageError):
                if not self._pool.lease(
                    OBJECT,
                    self._name,
                    self.cookie,
                    SECONDS,
                    _holder(),
                    self.connection,
                ):
                    self.lost = True
                    return

    def end(self) -> None:
        """Give it back; lost already: done."""
        self._ending.set()
        self._thread.join()
        # It ends by itself as well.
        with contextlib.suppress(errors.StorageError):
            self._pool.end_lease(
                OBJECT, self._name, self.cookie, self.connection
            )


def take(pool: Pool, name: str) -> Lease | None:
    """Take the right of this name; None: somebody has it."""
    cookie, connection = uuid.uuid4().hex, pool.cluster.connection()
    if not pool.lease(OBJECT, name, cookie, SECONDS, _holder(), connection):
        return None
    return Lease(pool, name, cookie, connection)


def take_for(pool: Pool, name: str, seconds: int) -> bool:
    """Take it until its time is over, and not a moment less or more."""
    return pool.lease(OBJECT, name, uuid.uuid4().hex, seconds, _holder())


def forget_dead(pool: Pool, prefix: str) -> None:
    """Forget the leases whose names begin so and whose holders died."""
    for name in pool.leases(OBJECT):
        if name.startswith(prefix) and (held := take(pool, name)):
            held.end()


def _holder() -> str:
    return f"{socket.gethostname()}/{os.getpid()}"
