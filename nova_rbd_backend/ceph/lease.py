# SPDX-License-Identifier: Apache-2.0

"""Hold an exclusive right in a pool that ends soon after its holder dies.

The OSD keeps the right and measures its time, so that no two hosts' clocks
are compared. A thread renews it as long as the process lives. A lease only
avoids double work: a holder that has lost it without notice must not be able
to do harm.
"""

import contextlib
import dataclasses
import os
import socket
import time
import uuid
from collections.abc import Iterator

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
        self,
        pool: Pool,
        name: str,
        cookie: str,
        connection: Connection,
        frees: bool,
    ):
        self._pool = pool
        self._name = name
        self.cookie = cookie
        self.connection = connection
        self._frees = frees
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
                if not self._taken_for(SECONDS):
                    self.lost = True
                    return

    def _taken_for(self, seconds: int) -> bool:
        key = (self._pool, self._name, self.cookie)
        return _taken(*key, seconds, self.connection, self._frees)

    def end(self, rest_seconds: int = 0) -> None:
        """Give the right back. Does nothing if it has been lost.

        If Ceph did not answer, the right ends by itself, and nobody waits for
        further time-outs.

        :param rest_seconds: for how long nobody else gets it
        """
        self._ending.set()
        if not self._pool.cluster.uses(self.connection):
            return
        self._thread.join()
        with contextlib.suppress(errors.StorageError):
            if rest_seconds:
                self._taken_for(rest_seconds)
                return
            self._pool.objects.end_lease(
                OBJECT, self._name, self.cookie, self.connection
            )


def take(pool: Pool, name: str, frees: bool = False) -> Lease | None:
    """Take the right of this name; None: another holder has it.

    :param frees: see Objects.lease
    """
    cookie, connection = uuid.uuid4().hex, pool.cluster.connection()
    if not _taken(pool, name, cookie, SECONDS, connection, frees):
        return None
    return Lease(pool, name, cookie, connection, frees)


@dataclasses.dataclass
class Turn:
    """A right to do a piece of periodic work.

    :ivar complete: False: a part is left, for whoever asks next
    """

    complete: bool = True


@contextlib.contextmanager
def turn(
    pool: Pool, name: str, period_seconds: int, frees: bool = False
) -> Iterator[Turn | None]:
    """Do a piece of work in only one process, once in each period.

    If the block raises, the next process that asks can do the work, and if the
    process dies, SECONDS later. Lends None if another process does it, or has
    done it.

    :param period_seconds: counted from the beginning of the work
    :param frees: the work frees space. It is done in a full pool too, without
        a lease if there is no object for it yet, and no room for one
    """
    began = time.monotonic()
    try:
        held = take(pool, name, frees)
    except errors.NoSpace:
        if not frees:
            raise
        yield Turn()
        return
    if held is None:
        yield None
        return
    lent, rest = Turn(), 0.0
    try:
        yield lent
        if lent.complete:
            rest = began + period_seconds - time.monotonic()
    finally:
        held.end(max(0, int(rest)))


def _taken(
    pool: Pool,
    name: str,
    cookie: str,
    seconds: int,
    connection: Connection,
    frees: bool,
) -> bool:
    holder = f"{socket.gethostname()}/{os.getpid()}"
    return pool.objects.lease(
        OBJECT, name, cookie, seconds, holder, connection, frees
    )


def remove_dead(pool: Pool, prefix: str) -> None:
    """Remove the records of leases with this prefix whose holders died."""
    for name in pool.objects.leases(OBJECT):
        if name.startswith(prefix) and (held := take(pool, name)):
            held.end()
