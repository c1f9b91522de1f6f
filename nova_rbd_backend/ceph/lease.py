# SPDX-License-Identifier: Apache-2.0

"""Hold an exclusive right in a pool that ends soon after its holder dies.

The OSD keeps the right and measures its time, so that no two hosts' clocks
are compared. A thread renews it as long as the process lives. A lease only
avoids double work: a holder that has lost it without notice must not be able
to do harm.
"""

import contextlib
import os
import socket
import uuid

from nova_rbd_backend import errors, threads
from nova_rbd_backend.ceph.connection import Connection
from nova_rbd_backend.ceph.pool import Pool

#: The object in the pool that has one lock (cls_lock) for each lease.
OBJECT = "nova_rbd_leases"
#: The longest wait for a dead holder.
SECONDS = 30
# In SECONDS, so that a lease outlives renewals that fail.
_RENEWALS = 4


class Lease:
    """A right that is held until :meth:`end`.

    :ivar cookie: distinguishes it from other leases of this process
    :ivar connection: the connection by which RADOS knows the holder, although
        the process may open a new one meanwhile
    :ivar lost: it ran out while Ceph did not answer, and another process has
        taken it
    """

    def __init__(
        self, pool: Pool, name: str, cookie: str, connection: Connection
    ):
        self._pool = pool
        self._name = name
        self.cookie = cookie
        self.connection = connection
        self.lost = False
        threading = threads.original_threading()
        self._ending = threading.Event()
        self._thread = threading.Thread(
            target=self._renew, name="nova-rbd-lease", daemon=True
        )
        self._thread.start()

    def _renew(self) -> None:
        while not self._ending.wait(SECONDS / _RENEWALS):
            # Ceph may answer again at the next try.
            with contextlib.suppress(errors.StorageError):
                key = (self._pool, self._name, self.cookie)
                if not _taken(*key, SECONDS, self.connection):
                    self.lost = True
                    return

    def end(self) -> None:
        """Give the right back. Does nothing if it has been lost.

        If Ceph did not answer, the right ends by itself, and nobody waits for
        further time-outs.
        """
        self._ending.set()
        if not self._pool.cluster.uses(self.connection):
            return
        self._thread.join()
        with contextlib.suppress(errors.StorageError):
            self._pool.objects.end_lease(
                OBJECT, self._name, self.cookie, self.connection
            )


def take(pool: Pool, name: str) -> Lease | None:
    """Take the right of this name; None: another holder has it."""
    cookie, connection = uuid.uuid4().hex, pool.cluster.connection()
    taken = _taken(pool, name, cookie, SECONDS, connection)
    return Lease(pool, name, cookie, connection) if taken else None


def take_for(pool: Pool, name: str, seconds: int) -> bool:
    """Take a right for a fixed time, which nothing shortens or extends."""
    return _taken(pool, name, uuid.uuid4().hex, seconds)


def _taken(
    pool: Pool,
    name: str,
    cookie: str,
    seconds: int,
    connection: Connection | None = None,
) -> bool:
    holder = f"{socket.gethostname()}/{os.getpid()}"
    return pool.objects.lease(
        OBJECT, name, cookie, seconds, holder, connection
    )


def remove_dead(pool: Pool, prefix: str) -> None:
    """Remove the records of leases with this prefix whose holders died."""
    for name in pool.objects.leases(OBJECT):
        if name.startswith(prefix) and (held := take(pool, name)):
            held.end()
