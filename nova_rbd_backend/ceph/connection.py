# SPDX-License-Identifier: Apache-2.0

"""RADOS connections: open one, lend its ioctxs, close it when it is unused."""

import contextlib
import ctypes
import os
import weakref
from collections.abc import Mapping
from typing import Any

import rados

from nova_rbd_backend import threads
from nova_rbd_backend.ceph import error_map
from nova_rbd_backend.settings import ClusterSettings


class Connection:
    """One open RADOS connection.

    :ivar open_ioctxs: by pool, namespace and whether it frees space, as
        :meth:`ioctx` is asked for them; only :meth:`ioctx` adds to it
    """

    def __init__(self, settings: ClusterSettings):
        self.handle = _connected(settings)
        self.open_ioctxs: dict[tuple[str, str, bool], rados.Ioctx] = {}
        self._lock = threads.original_threading().Lock()
        _CLOSER.start()
        self._closing = weakref.finalize(
            self, _CLOSER.close, self.handle, self.open_ioctxs
        )
        # At exit the kernel closes it sooner, and no thread is left to wait.
        self._closing.atexit = False

    def ioctx(
        self, pool: str, namespace: str, frees: bool = False
    ) -> rados.Ioctx:
        """Return the shared ioctx, whose settings never change afterwards.

        :param frees: for operations that give space back. librados holds a
            write to a full pool back until the pool has room again, except
            for operations with this mark, of which the OSDs refuse those that
            would need more space.
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

        rados_shutdown waits for threads, which a fork does not copy.
        """
        self._closing.detach()
        for kept in (self.handle, *self.open_ioctxs.values()):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))


def _connected(settings: ClusterSettings) -> rados.Rados:
    """librados: rados_create, rados_conf_read_file, rados_connect."""
    limit = str(settings.operation_timeout_seconds)
    conf = settings.conf_file or "Ceph's default conf file"
    with error_map.translated(f"read {conf}", kind="conf file"):
        handle = rados.Rados(
            conffile=settings.conf_file or "",
            rados_id=settings.user,
            conf={
                "client_mount_timeout": str(settings.connect_timeout_seconds),
                "rados_mon_op_timeout": limit,
                "rados_osd_op_timeout": limit,
                # Clones of unprotected snaps; parents may go to the trash.
                "rbd_default_clone_format": "2",
                # Not rbd_blocklist_expire_seconds: with it librbd breaks no
                # lock any more (EINVAL; seen in 16.2.15).
            },
        )
    with error_map.translated(f"connect to the cluster of {conf}"):
        try:
            handle.connect(timeout=settings.connect_timeout_seconds)
        except BaseException:
            handle.shutdown()
            raise
    return handle


def try_key(settings: ClusterSettings, key: str) -> None:
    """Log in with a key in place of the keyring's; nothing stays open.

    Blocks for at most the connect timeout. The key has to be well-formed:
    librados writes a key that it cannot decode to its log. librados:
    rados_connect.

    :param key: as a keyring has it, base64
    :raises errors.NotPermitted: the cluster has another key for this user
    :raises errors.ClusterUnreachable: no answer in time
    """
    with error_map.translated("read the conf file", kind="conf file"):
        handle = rados.Rados(
            conffile=settings.conf_file or "",
            rados_id=settings.user,
            conf={
                "key": key,
                "client_mount_timeout": str(settings.connect_timeout_seconds),
                # 16.2 prints a monitor's answer that comes after the end.
                "err_to_stderr": "false",
                "log_to_stderr": "false",
            },
        )
    try:
        with error_map.translated("log in to the cluster"):
            handle.connect(timeout=settings.connect_timeout_seconds)
    finally:
        handle.shutdown()


class _Closer:
    """A native thread that closes connections which nobody uses any more.

    python-rados 16.2 frees a connection only on shutdown(), which may wait
    and may not be called from where the garbage collector happens to run (a
    greenlet, a thread that holds a lock).
    """

    def __init__(self) -> None:
        self._queue: Any = None

    def start(self) -> None:
        """Start the thread, before the first connection can be dropped."""
        if self._queue is None:
            # Written in C: safe to put into from a garbage collection.
            self._queue = threads.original_queue().SimpleQueue()
            threads.original_threading().Thread(
                target=self._work,
                args=(self._queue,),
                name="nova-rbd-closer",
                daemon=True,
            ).start()

    def close(
        self, handle: rados.Rados, ioctxs: Mapping[Any, rados.Ioctx]
    ) -> None:
        """Have it closed soon; returns at once."""
        if self._queue is not None:
            self._queue.put((handle, ioctxs))

    def after_fork(self) -> None:
        """In the child: the thread is the parent's."""
        self._queue = None

    @staticmethod
    def _work(queue: Any) -> None:
        while True:
            handle, ioctxs = queue.get()
            with contextlib.suppress(Exception):
                for ioctx in ioctxs.values():
                    ioctx.close()
                handle.shutdown()


_CLOSER = _Closer()
os.register_at_fork(after_in_child=_CLOSER.after_fork)
