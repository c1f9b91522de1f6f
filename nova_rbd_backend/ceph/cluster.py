# SPDX-License-Identifier: Apache-2.0

"""One long-lived RADOS connection per process, conf file and cephx user.

It is opened on first use, shared by all threads, and opened again after it
has died (shutdown, blocklisting). Its users close nothing.
"""

import contextlib
import functools
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, Concatenate, ParamSpec, TypeVar

import rados

from nova_rbd_backend import errors, threads
from nova_rbd_backend.ceph import capacity, error_map, monitors
from nova_rbd_backend.ceph.connection import Connection
from nova_rbd_backend.settings import ClusterSettings

P = ParamSpec("P")
T = TypeVar("T")

# Nonce 0 would stand for the whole host (OSDMap::is_blocklisted, 16.2).
_CLIENT_ADDRESS = re.compile(r"[^/]+:\d+/[1-9]\d*")


def once_more(
    func: Callable[Concatenate[Any, P], T],
) -> Callable[Concatenate[Any, P], T]:
    """Call func again, on a new connection, if the connection was dead.

    Only for what may be repeated: reads, and flows that can be resumed.
    """

    @functools.wraps(func)
    def again(first: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return func(first, *args, **kwargs)
        except errors.ConnectionLost:
            return func(first, *args, **kwargs)

    return again


class Cluster:
    """A Ceph cluster as one cephx user sees it; safe for all threads."""

    def __init__(self, settings: ClusterSettings):
        self.settings = settings
        self._connection: Connection | None = None
        self._lock = threads.original_threading().Lock()
        self._fsid: str | None = None
        self._failure: tuple[float, errors.StorageError] | None = None

    def connection(self) -> Connection:
        """Return the open connection; threads that wait share one attempt.

        :raises ClusterUnreachable: not within the connect timeout
        """
        if (found := self._connection) is not None:
            return found
        asked_at = time.monotonic()
        with self._lock:
            if self._connection is None:
                self._raise_failure_since(asked_at)
                try:
                    self._connection = Connection(self.settings)
                except errors.StorageError as error:
                    self._failure = (time.monotonic(), error)
                    raise
            return self._connection

    def _raise_failure_since(self, asked_at: float) -> None:
        """Fail with an attempt that this thread has waited for.

        Otherwise each of the waiting threads would wait for a new time-out.
        """
        if self._failure is not None and self._failure[0] >= asked_at:
            error = self._failure[1]
            raise type(error)(
                error.reason, operation=error.operation
            ) from error

    def drop(self, broken: Connection) -> None:
        """Open a new connection on next use.

        The broken one is closed when the last thread has ended its use of it.
        """
        with self._lock:
            if self._connection is broken:
                self._connection = None

    def after_fork(self) -> None:
        """In the child: leave the connection to the parent."""
        self._lock = threads.original_threading().Lock()
        if self._connection is not None:
            self._connection.abandon()
            self._connection = None

    @contextlib.contextmanager
    def reach(
        self,
        operation: str,
        connection: Connection | None = None,
        **target: Any,
    ) -> Iterator[Connection]:
        """Lend the connection, translate errors, and drop it if it is useless.

        It is useless when it is dead, and after a time-out: an image that
        could not be closed keeps its exclusive lock, which only another
        client can break (librbd refuses to blocklist itself).

        :param connection: the connection over which an ioctx or an image was
            opened; None: the current one
        """
        connection = connection or self.connection()
        try:
            with error_map.translated(operation, **target):
                yield connection
        except (errors.ConnectionLost, errors.OperationTimedOut):
            self.drop(connection)
            raise

    def fsid(self) -> str:
        """Return the cluster's id. librados: rados_cluster_fsid."""
        if self._fsid is None:
            with self.reach("get the cluster's fsid") as connection:
                self._fsid = connection.handle.get_fsid()
        return self._fsid

    def pool_name(self, pool_id: int) -> str:
        """Return a pool's name by its id. librados: rados_pool_reverse_lookup.

        :raises PoolNotFound: there is no such pool
        """
        with self.reach(
            "look up a pool", kind="pool", pool=str(pool_id)
        ) as connection:
            return str(connection.handle.pool_reverse_lookup(pool_id))

    @once_more
    def mon_command(self, /, prefix: str, **args: Any) -> bytes:
        """Ask the monitors. librados: rados_mon_command.

        :raises StorageError: the monitors refused, with the reason they gave
        """
        command = json.dumps({"prefix": prefix, "format": "json", **args})
        with self.reach(f"mon command '{prefix}'") as connection:
            code, answer, status = connection.handle.mon_command(command, b"")
            if code:
                raise rados.OSError(status, errno=-code)
        return answer

    def mgr_command(self, prefix: str, **args: Any) -> bytes:
        """Ask the manager. librados: rados_mgr_command.

        A missing manager is no sign of a broken connection, which is kept.

        :raises OperationTimedOut: no manager answers
        :raises StorageError: the manager refused, with the reason it gave
        """
        command = json.dumps({"prefix": prefix, "format": "json", **args})
        connection = self.connection()
        with error_map.translated(f"mgr command '{prefix}'"):
            code, answer, status = connection.handle.mgr_command(command, b"")
            if code:
                # 16.2 gives its own time-out as a positive number.
                raise rados.OSError(status, errno=abs(code))
        return answer

    def client_id(self) -> int:
        """Return our connection's global id.

        librados: rados_get_instance_id.
        """
        with self.reach("get our client id") as connection:
            return int(connection.handle.get_instance_id())

    def blocklist(self, address: str) -> None:
        """Keep a client from the OSDs, from the moment of return on.

        This connection then has the OSD map with the entry, and each OSD has
        it before it answers us: a write of the client that is not in an
        object by then will never get there. A client that is listed already
        keeps its expiry (16.2). librados: rados_blocklist_add.

        :param address: exactly as the image shows it, with the nonce
        """
        if not _CLIENT_ADDRESS.fullmatch(address):
            raise errors.StorageFault(
                f"{address!r} is no address of one client",
                operation="blocklist",
            )
        with self.reach(f"blocklist {address}") as connection:
            connection.handle.blocklist_add(
                address, self.settings.blocklist_seconds
            )

    def mon_addresses(self) -> tuple[monitors.MonAddress, ...]:
        """Return all monitors of the live monmap, in rank order."""
        return monitors.from_mon_dump(self._mon_dump())

    def all_mon_addresses(self) -> tuple[tuple[monitors.MonAddress, ...], ...]:
        """Return the same monitors, each with all its addresses."""
        return monitors.all_from_mon_dump(self._mon_dump())

    def _mon_dump(self) -> Any:
        return json.loads(self.mon_command("mon dump"))

    def capacity(
        self, pool_name: str, data_pool: str | None = None
    ) -> capacity.Capacity:
        """Return what the pool can hold, given its data protection and quota.

        :raises PoolNotFound: there is no such pool
        """
        df = json.loads(self.mon_command("df", detail="detail"))
        return capacity.from_df(df, pool_name, data_pool)


class _Clusters:
    """The clusters of this process, one for each way to connect."""

    def __init__(self) -> None:
        self._lock = threads.original_threading().Lock()
        self._found: dict[ClusterSettings, Cluster] = {}

    def get(self, settings: ClusterSettings) -> Cluster:
        with self._lock:
            return self._found.setdefault(settings, Cluster(settings))

    def after_fork(self) -> None:
        self._lock = threads.original_threading().Lock()
        for cluster in self._found.values():
            cluster.after_fork()


_CLUSTERS = _Clusters()
os.register_at_fork(after_in_child=_CLUSTERS.after_fork)


def connect(settings: ClusterSettings) -> Cluster:
    """Return the process's one Cluster of these settings, not opened yet."""
    return _CLUSTERS.get(settings)
