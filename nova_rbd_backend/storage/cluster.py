# SPDX-License-Identifier: Apache-2.0

"""One long-lived RADOS connection per process, conf file and cephx user.

It is opened on first use, shared by all threads and opened again after it
died (shutdown, blocklisting). Nothing here is closed by its users.
"""

import contextlib
import ctypes
import dataclasses
import functools
import json
import os
import re
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Concatenate, ParamSpec, TypeVar

import rados

from nova_rbd_backend import errors
from nova_rbd_backend.image_options import ImageOptions
from nova_rbd_backend.storage import capacity as capacity_
from nova_rbd_backend.storage import ceph_errors, closer, monitors, offload
from nova_rbd_backend.storage.pool import Pool
from nova_rbd_backend.storage.pool_objects import NO_OPTIONS

P = ParamSpec("P")
T = TypeVar("T")

BLOCKLIST_SECONDS = 7 * 24 * 3600
# Nonce 0 would stand for the whole host (OSDMap::is_blocklisted, 16.2).
_CLIENT_ADDRESS = re.compile(r"[^/]+:\d+/[1-9]\d*")


@dataclasses.dataclass(frozen=True)
class ClusterSettings:
    """:ivar conf_file: None: where Ceph looks by itself
    :ivar user: without "client."; None: Ceph's default, admin
    :ivar operation_timeout_seconds: 0: wait for ever
    :ivar blocklist_seconds: for how long a dead client can write no more
    """

    conf_file: str | None
    user: str | None
    connect_timeout_seconds: int
    operation_timeout_seconds: int
    blocklist_seconds: int = BLOCKLIST_SECONDS


class Connection:
    """One open RADOS connection.

    :ivar open_ioctxs: two for each pool and namespace, by what :meth:`ioctx`
        is asked for; only that adds
    """

    def __init__(self, settings: ClusterSettings):
        self.handle = _connected(settings)
        self.open_ioctxs: dict[tuple[str, str, bool], rados.Ioctx] = {}
        self._lock = offload.original_threading().Lock()
        closer.start()
        self._closing = weakref.finalize(
            self, closer.close, self.handle, self.open_ioctxs
        )
        # At exit the kernel is quicker, and no thread is there to wait for.
        self._closing.atexit = False

    def ioctx(
        self, pool: str, namespace: str, frees: bool = False
    ) -> rados.Ioctx:
        """The shared ioctx: its settings are never changed afterwards.

        :param frees: for what gives space back. A write to a full pool is
            kept by librados until that is not full any more, but for those
            that are marked: OSDs refuse but what would need more space.
        """
        key = (pool, namespace, frees)
        with self._lock:
            if key not in self.open_ioctxs:
                ioctx = self.handle.open_ioctx(pool)
                ioctx.set_namespace(namespace)
                if frees:
                    ioctx.set_osdmap_full_try()
                self.open_ioctxs[key] = ioctx
            return self.open_ioctxs[key]

    def abandon(self) -> None:
        """After a fork: never free the parent's handles in the child.

        rados_shutdown waits for threads that a fork does not copy.
        """
        self._closing.detach()
        for kept in (self.handle, *self.open_ioctxs.values()):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))


def _connected(settings: ClusterSettings) -> rados.Rados:
    """librados: rados_create, rados_conf_read_file, rados_connect."""
    limit = str(settings.operation_timeout_seconds)
    conf = settings.conf_file or "Ceph's default conf file"
    with ceph_errors.translated(f"read {conf}", kind="conf file"):
        handle = rados.Rados(
            conffile=settings.conf_file or "",
            rados_id=settings.user,
            conf={
                "client_mount_timeout": str(settings.connect_timeout_seconds),
                "rados_mon_op_timeout": limit,
                "rados_osd_op_timeout": limit,
                # clones of unprotected snaps, parents may go to the trash
                "rbd_default_clone_format": "2",
                # Not rbd_blocklist_expire_seconds: with it librbd breaks no
                # lock any more (EINVAL; seen in 16.2.15).
            },
        )
    with ceph_errors.translated(f"connect to the cluster of {conf}"):
        try:
            handle.connect(timeout=settings.connect_timeout_seconds)
        except BaseException:
            handle.shutdown()
            raise
    return handle


def once_more(
    func: Callable[Concatenate[Any, P], T],
) -> Callable[Concatenate[Any, P], T]:
    """Do it a second time on a new connection when the first one was dead.

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
        self._lock = offload.original_threading().Lock()
        self._fsid: str | None = None
        self._failure: tuple[float, errors.StorageError] | None = None

    def connection(self) -> Connection:
        """The open connection; opens it, once for all who wait.

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
        """Who waited for an attempt shares its failure: no second wait."""
        if self._failure is not None and self._failure[0] >= asked_at:
            error = self._failure[1]
            raise type(error)(
                error.reason, operation=error.operation
            ) from error

    def drop(self, broken: Connection) -> None:
        """Open a new connection on next use; others may be in the old one.

        It is closed when the last of them is done with it.
        """
        with self._lock:
            if self._connection is broken:
                self._connection = None

    def after_fork(self) -> None:
        """In the child: forget, do not shut down."""
        self._lock = offload.original_threading().Lock()
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
        """Lend the connection, translate errors, drop it when it is of no use.

        That is when it is dead, and after a time-out: an image that could
        not be closed keeps its exclusive lock, which only another client can
        break (librbd refuses to blocklist itself).

        :param connection: the one that what is used came from; None: the
            current one
        """
        connection = connection or self.connection()
        try:
            with ceph_errors.translated(operation, **target):
                yield connection
        except (errors.ConnectionLost, errors.OperationTimedOut):
            self.drop(connection)
            raise

    def fsid(self) -> str:
        """The cluster's id. librados: rados_cluster_fsid."""
        if self._fsid is None:
            with self.reach("get the cluster's fsid") as connection:
                self._fsid = connection.handle.get_fsid()
        return self._fsid

    def pool(
        self,
        name: str,
        namespace: str = "",
        options: ImageOptions = NO_OPTIONS,
    ) -> Pool:
        """A pool's door; cheap, nothing is opened yet.

        :param options: what new images get
        """
        return Pool(self, name, namespace, options)

    def pool_name(self, pool_id: int) -> str:
        """A pool's name by its id. librados: rados_pool_reverse_lookup.

        :raises PoolNotFound: there is no such pool
        """
        with self.reach(
            "look up a pool", kind="pool", pool=str(pool_id)
        ) as connection:
            return str(connection.handle.pool_reverse_lookup(pool_id))

    @once_more
    def mon_command(self, /, prefix: str, **args: Any) -> bytes:
        """Ask the monitors. librados: rados_mon_command.

        :raises StorageError: they refused; the reason is theirs
        """
        command = json.dumps({"prefix": prefix, "format": "json", **args})
        with self.reach(f"mon command '{prefix}'") as connection:
            code, answer, status = connection.handle.mon_command(command, b"")
            if code:
                raise rados.OSError(status, errno=-code)
        return answer

    def mgr_command(self, prefix: str, **args: Any) -> bytes:
        """Ask the manager. librados: rados_mgr_command.

        A manager that is away says nothing of the cluster: the connection is
        kept.

        :raises OperationTimedOut: none answers
        :raises StorageError: it refused; the reason is its own
        """
        command = json.dumps({"prefix": prefix, "format": "json", **args})
        connection = self.connection()
        with ceph_errors.translated(f"mgr command '{prefix}'"):
            code, answer, status = connection.handle.mgr_command(command, b"")
            if code:
                # 16.2 gives its own time-out as a positive number.
                raise rados.OSError(status, errno=abs(code))
        return answer

    def client_id(self) -> int:
        """Our own connection's global id. librados: rados_get_instance_id."""
        with self.reach("get our client id") as connection:
            return int(connection.handle.get_instance_id())

    def blocklist(self, address: str) -> None:
        """Keep a client from the OSDs; returns when they have to know.

        This connection then has the map that says so, and so has each OSD
        before it answers us: a write of the client's that is not seen in an
        object then will never be. Listed already: keeps its expiry (16.2).
        librados: rados_blocklist_add.

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
        """All monitors of the live monmap, in rank order."""
        return monitors.from_mon_dump(self._mon_dump())

    def all_mon_addresses(self) -> tuple[tuple[monitors.MonAddress, ...], ...]:
        """The same, each with all its addresses."""
        return monitors.all_from_mon_dump(self._mon_dump())

    def _mon_dump(self) -> Any:
        return json.loads(self.mon_command("mon dump"))

    def capacity(
        self, pool_name: str, data_pool: str | None = None
    ) -> capacity_.Capacity:
        """What the pool can hold, as its protection and quota leave it.

        :raises PoolNotFound: there is no such pool
        """
        df = json.loads(self.mon_command("df", detail="detail"))
        return capacity_.from_df(df, pool_name, data_pool)


_clusters: dict[ClusterSettings, Cluster] = {}
_clusters_lock = [offload.original_threading().Lock()]


def connect(settings: ClusterSettings) -> Cluster:
    """The process's one Cluster of these settings; nothing is opened yet."""
    with _clusters_lock[0]:
        return _clusters.setdefault(settings, Cluster(settings))


def _after_fork_in_child() -> None:
    _clusters_lock[0] = offload.original_threading().Lock()
    for cluster in _clusters.values():
        cluster.after_fork()
    offload.forget_background()
    closer.forget()


os.register_at_fork(after_in_child=_after_fork_in_child)
