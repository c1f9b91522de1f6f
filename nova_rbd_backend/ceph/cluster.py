# SPDX-License-Identifier: Apache-2.0

"""Keep one RADOS connection for each process, conf file and cephx user.

The connection is opened on first use, shared by all threads, and opened again
after it has died (shutdown, blocklisting). Its users close nothing.
"""

import contextlib
import functools
import gc
import json
import os
import re
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import rados

from nova_rbd_backend import errors, threads
from nova_rbd_backend.ceph import capacity, error_map, monitors
from nova_rbd_backend.ceph.connection import Connection
from nova_rbd_backend.settings import ClusterSettings

P = ParamSpec("P")
T = TypeVar("T")

# Nonce 0 would blocklist the whole host (OSDMap::is_blocklisted, 16.2).
_CLIENT_ADDRESS = re.compile(r"[^/]+:\d+/[1-9]\d*")
# Dropped connections, each with some eleven threads and as many sockets. A
# full garbage collection stops a nova-compute for tenths of a second.
_MOST_KEPT = 2
#: In the network for documentation (RFC 5737), where no client is.
NO_CLIENT = "192.0.2.1:0/1"
_LISTED_FOR = re.compile(r"\(([\d.e+]+) sec\)")


def once_more(func: Callable[P, T]) -> Callable[P, T]:
    """Call func again, on a new connection, if the connection was dead.

    Only for reads, and for flows that can be resumed.
    """

    @functools.wraps(func)
    def again(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return func(*args, **kwargs)
        except errors.ConnectionLost:
            return func(*args, **kwargs)

    return again


class Cluster:
    """A Ceph cluster as one cephx user sees it; safe for all threads."""

    def __init__(
        self, settings: ClusterSettings, is_for_images_in_use: bool = False
    ):
        self.settings = settings
        self._is_for_images_in_use = is_for_images_in_use
        self._connection: Connection | None = None
        self._lock = threads.original_threading().Lock()
        self._fsid: str | None = None
        self._dropped: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._failure: tuple[float, errors.StorageError] | None = None
        # The one of for_images_in_use, in a dict because setdefault is atomic.
        self._others: dict[str, Cluster] = {}

    @property
    def for_images_in_use(self) -> "Cluster":
        """The same cluster, over a second connection; opens nothing.

        Of that one this is the same. See Pool.for_image_in_use.
        """
        if self._is_for_images_in_use:
            return self
        other = Cluster(self.settings, is_for_images_in_use=True)
        return self._others.setdefault("in use", other)

    def connection(self) -> Connection:
        """Return the open connection, or open one.

        Threads that ask at the same time share one attempt to open it.

        :raises ClusterUnreachable: no answer within the connect timeout
        """
        if (found := self._connection) is not None:
            return found
        asked_at = time.monotonic()
        with self._lock:
            if self._connection is not None:
                return self._connection
            if self._failure is not None and self._failure[0] >= asked_at:
                # The threads that waited for this attempt fail with it, rather
                # than each waiting for a new time-out.
                error = self._failure[1]
                again = type(error)(error.reason, operation=error.operation)
                raise again from error
            try:
                self._connection = Connection(self.settings)
            except errors.StorageError as error:
                self._failure = (time.monotonic(), error)
                raise
            return self._connection

    def uses(self, connection: Connection) -> bool:
        """Return whether a connection is the open one, that nobody dropped."""
        return self._connection is connection

    def drop(self, broken: Connection) -> None:
        """Forget a broken connection, so that the next use opens a new one.

        It is closed when no thread uses it any more, and no error refers to
        it: an error has the frames that it came through, and a frame that
        has the error in a variable of its own keeps both until Python's next
        full garbage collection. In a nova-compute, hours may pass until then.
        """
        with self._lock:
            if self._connection is not broken:
                return
            self._connection = None
            kept = len(self._dropped)
            self._dropped.add(broken)
        if kept >= _MOST_KEPT:
            gc.collect()

    def after_fork(self) -> None:
        """Leave the connection to the parent of a fork."""
        self._lock = threads.original_threading().Lock()
        for each in (self._connection, *self._dropped):
            if each is not None:
                each.abandon()
        self._connection = None
        self._dropped.clear()
        for other in self._others.values():
            other.after_fork()

    @contextlib.contextmanager
    def reach(
        self,
        operation: str,
        connection: Connection | None = None,
        **target: Any,
    ) -> Iterator[Connection]:
        """Lend the connection, and translate errors within the block.

        Drops the connection if it is dead, and after a time-out: an image
        that could not be closed keeps its exclusive lock, which only another
        client can break (librbd refuses to blocklist itself). This costs
        other threads nothing: they end their work on the old connection.

        :param connection: the connection over which an ioctx or an image was
            opened; None: the current one
        :param target: see error_map.translated
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

    def releases(self) -> list[str]:
        """Return the releases of the cluster's daemons, such as 16.2.15.

        More than one while it is upgraded. mon: versions.
        """
        running = json.loads(self.mon_command("versions"))["overall"]
        # ceph version 16.2.15 (...) pacific (stable)
        return sorted({text.split()[2] for text in running})

    def pool_name(self, pool_id: int) -> str:
        """Return a pool's name by its id. librados: rados_pool_reverse_lookup.

        :raises PoolNotFound: there is no such pool
        """
        with self.reach(
            "look up a pool", kind="pool", pool=str(pool_id)
        ) as connection:
            lookup = connection.handle.pool_reverse_lookup
            return str(connection.limited(lambda: lookup(pool_id)))

    @once_more
    def mon_command(self, /, prefix: str, **args: Any) -> bytes:
        """Send a command to the monitors. librados: rados_mon_command.

        :raises StorageError: the monitors refused, with the reason they gave
        """
        with self.reach(f"mon command '{prefix}'") as connection:
            return _answer(connection.handle.mon_command, prefix, args)[0]

    def mgr_command(self, prefix: str, **args: Any) -> bytes:
        """Send a command to the manager. librados: rados_mgr_command.

        Keeps the connection if no manager answers: it is not broken.

        :raises OperationTimedOut: no manager answers
        :raises StorageError: the manager refused, with the reason it gave
        """
        connection = self.connection()
        with error_map.translated(f"mgr command '{prefix}'", kind="mgr"):
            return _answer(connection.handle.mgr_command, prefix, args)[0]

    def client_id(self) -> int:
        """Return our global id. librados: rados_get_instance_id."""
        with self.reach("get our client id") as connection:
            return int(connection.handle.get_instance_id())

    def blocklist(self, address: str) -> None:
        """Keep a client from writing, from the moment this returns.

        This connection then has the OSD map with the entry, and each OSD gets
        that map before it answers us. So a write of the client that has not
        reached its object by then never will. A client that is listed already
        keeps its expiry (16.2). librados: rados_blocklist_add.

        :param address: exactly as the image shows it, with the nonce
        """
        if not _CLIENT_ADDRESS.fullmatch(address):
            raise errors.StorageFault(
                f"{address!r} is not the address of one client",
                operation="blocklist",
            )
        with self.reach(f"blocklist {address}") as connection:
            connection.handle.blocklist_add(
                address, self.settings.blocklist_seconds
            )

    def cut_off(self, connection: Connection) -> None:
        """Drop a connection of ours and blocklist it, which ends its calls.

        Over a new connection, as the old one does not get every answer.
        librados: rados_getaddrs; then see blocklist.
        """
        self.drop(connection)
        with self.reach("get our address", connection):
            address = connection.handle.get_addrs()
        self.blocklist(address)

    def default_blocklist_seconds(self) -> float | None:
        """Return for how long the monitors list a client by default.

        This is mon_osd_blocklist_default_expire, which ``profile rbd`` may not
        read. Lists an address that no client has, and that stays listed for
        this time; the monitors then tell it (16.2, OSDMonitor.cc). librados:
        rados_mon_command.

        :returns: None: they tell it in another way
        :raises NotPermitted: our user may not put clients on the blocklist
        """
        prefix = "osd blocklist"
        with self.reach(f"mon command '{prefix}'") as connection:
            _, said = _answer(
                connection.handle.mon_command,
                prefix,
                {"blocklistop": "add", "addr": NO_CLIENT},
            )
        found = _LISTED_FOR.search(said)
        return float(found[1]) if found else None

    def mon_addresses(self) -> tuple[monitors.MonAddress, ...]:
        """Return one address of each monitor of the live monmap."""
        dump = json.loads(self.mon_command("mon dump"))
        return monitors.from_mon_dump(dump)

    def all_mon_addresses(self) -> tuple[tuple[monitors.MonAddress, ...], ...]:
        """Return all addresses of each monitor of the live monmap."""
        dump = json.loads(self.mon_command("mon dump"))
        return monitors.all_from_mon_dump(dump)

    def catch_up(self) -> None:
        """Get the newest OSD map for each open connection; opens one.

        A connection that is not used gets no maps. At its next request it
        reads those that it lacks, forty at a time. If the request's pool is
        full in the last of the forty, the request waits until librados looks
        for late ones, some 10 s later (16.2). Not for use before a request:
        the OSDs may answer while no monitor does. librados:
        rados_wait_for_latest_osdmap.
        """
        with self.reach("get the newest OSD map") as connection:
            connection.limited(connection.handle.wait_for_latest_osdmap)
        for other in self._others.values():
            if other._connection is not None:
                other.catch_up()

    def capacity(
        self, pool_name: str, data_pool: str | None = None
    ) -> capacity.Capacity:
        """Return what the pool can hold, given its data protection and quota.

        :raises PoolNotFound: there is no such pool
        """
        df = json.loads(self.mon_command("df", detail="detail"))
        return capacity.from_df(df, pool_name, data_pool)


def _answer(
    command: Callable[[str, bytes], tuple[int, bytes, str]],
    prefix: str,
    args: dict[str, Any],
) -> tuple[bytes, str]:
    """Return the answer, and what the daemon says beside it."""
    text = json.dumps({"prefix": prefix, "format": "json", **args})
    code, answer, status = command(text, b"")
    if code:
        # 16.2 returns the manager's time-out as a positive number.
        raise rados.OSError(status, errno=abs(code))
    return answer, status


_CLUSTERS: dict[ClusterSettings, Cluster] = {}


def connect(settings: ClusterSettings) -> Cluster:
    """Return this process's one Cluster with these settings; opens nothing."""
    # Safe for all threads, because setdefault is atomic.
    return _CLUSTERS.setdefault(settings, Cluster(settings))


def _after_fork() -> None:
    for cluster in _CLUSTERS.values():
        cluster.after_fork()


os.register_at_fork(after_in_child=_after_fork)
