# SPDX-License-Identifier: Apache-2.0

"""Open RADOS connections, lend their ioctxs, and close unused connections."""

import base64
import contextlib
import ctypes
import errno
import functools
import weakref
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import rados

from nova_rbd_backend import errors, threads
from nova_rbd_backend.ceph import error_map, keys, layouts
from nova_rbd_backend.settings import ClusterSettings

T = TypeVar("T")


class Connection:
    """One open RADOS connection."""

    def __init__(self, settings: ClusterSettings):
        limit = str(settings.operation_timeout_seconds)
        conf = {
            "rados_mon_op_timeout": limit,
            "rados_osd_op_timeout": limit,
            # Clones of unprotected snaps; parents may go to the trash.
            "rbd_default_clone_format": "2",
            # If a client dies after its image was fenced. With this option the
            # librbd of 16.2.15 breaks no lock at all, because the monitors
            # refuse how it gives the time ("604800s.0", EINVAL). The operation
            # fails then (EROFS, a write EINVAL), and the next attempt fences
            # the client first.
            "rbd_blocklist_expire_seconds": str(settings.blocklist_seconds),
        }
        self.handle = _connected(settings, conf, keys.type_of(settings))
        #: By the arguments of ioctx(), which alone adds to it.
        self.open_ioctxs: dict[tuple[str, str, bool], rados.Ioctx] = {}
        self._limit_seconds = settings.operation_timeout_seconds
        self._closing = weakref.finalize(
            self, _close_soon, self.handle, self.open_ioctxs
        )
        # At exit the kernel closes the connection sooner, and no thread is
        # left that could wait for it.
        self._closing.atexit = False

    def ioctx(
        self, pool: str, namespace: str, frees: bool = False
    ) -> rados.Ioctx:
        """Return the shared ioctx, whose settings never change afterwards.

        :param frees: for operations that free space. librados delays a write
            to a full pool until the pool has room again. It does not delay
            operations with this mark; the OSDs refuse those that need more
            space.
        """
        key = (pool, namespace, frees)
        if key in self.open_ioctxs:
            return self.open_ioctxs[key]

        def opened() -> rados.Ioctx:
            ioctx = self.handle.open_ioctx(pool)
            ioctx.set_namespace(namespace)
            if frees:
                ioctx.set_osdmap_full_try()
            return ioctx

        # No lock is held. Of two threads that open it, the first one wins.
        return self.open_ioctxs.setdefault(key, self.limited(opened))

    def limited(self, call: Callable[[], T]) -> T:
        """Make a call of librados or librbd that may wait without a limit.

        For a pool that its map does not have, librados waits for the latest
        map, without a limit (RadosClient::lookup_pool, pool_get_name, 16.2).
        A call that does not end in time keeps the connection from being
        closed, which would be the end of the process (a segmentation fault).

        :raises rados.OSError: (ETIMEDOUT) it has not ended in time
        """
        kept = functools.partial(_called, call, self)
        try:
            return threads.within(self._limit_seconds, kept)
        except TimeoutError as error:
            raise rados.OSError(str(error), errno=errno.ETIMEDOUT) from error

    def abandon(self) -> None:
        """Keep the child of a fork from freeing the parent's handles.

        rados_shutdown waits for threads, which a fork does not copy.
        """
        self._closing.detach()
        for kept in (self.handle, *self.open_ioctxs.values()):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))


def _called(call: Callable[[], T], _kept: Connection) -> T:
    return call()


def _connected(
    settings: ClusterSettings, conf: Mapping[str, str], key_type: int | None
) -> rados.Rados:
    """librados: rados_create, rados_conf_read_file, rados_connect.

    :param key_type: of the user's key; None: unknown
    :raises KeyUnreadable: this librados does not know keys of that type
    """
    is_old = key_type in (None, keys.AES)
    timeout_seconds = settings.connect_timeout_seconds
    shown = settings.conf_file or "Ceph's default conf file"
    with error_map.translated(f"read {shown}", kind="conf file"):
        handle = rados.Rados(
            conffile=settings.conf_file or "",
            rados_id=settings.user,
            conf_defaults={} if is_old else keys.QUIET,
            conf={"client_mount_timeout": str(timeout_seconds), **conf},
        )
    with error_map.translated(f"connect to the cluster of {shown}"):
        try:
            handle.connect(timeout=timeout_seconds)
        except BaseException as error:
            handle.shutdown()
            number = error_map.ceph_errno(error)
            # EIO for a keyring, EINVAL for a key in the options (16.2).
            if not is_old and number in (errno.EIO, errno.EINVAL):
                raise errors.KeyUnreadable(
                    f"the key of client.{settings.user or 'admin'} is of type "
                    f"{key_type} (2 is aes256k, which clusters of Ceph 20 "
                    "make), which this host's librados cannot read",
                    operation=f"connect to the cluster of {shown}",
                ) from None
            raise
        if "key" not in conf and not is_old:
            handle.conf_set("err_to_stderr", "true")  # librados' default
    return handle


def try_key(settings: ClusterSettings, key: str) -> None:
    """Log in with this key instead of the keyring's, and close again.

    Blocks for at most the connect timeout. The key must be well-formed:
    librados writes a key that it cannot decode to its log. librados:
    rados_connect.

    :param key: base64, as in a keyring
    :raises errors.NotPermitted: the cluster has another key for this user
    :raises errors.ClusterUnreachable: no answer in time
    :raises errors.KeyUnreadable: this librados does not know such keys
    """
    conf = {
        # 16.2 prints a monitor's answer that arrives after the shutdown.
        **keys.QUIET,
        "key": key,
    }
    key_type = layouts.key_type(base64.b64decode(key))
    _connected(settings, conf, key_type).shutdown()


def _close_soon(
    handle: rados.Rados, ioctxs: Mapping[Any, rados.Ioctx]
) -> None:
    """Close a connection that nobody uses any more, in a native thread.

    python-rados 16.2 frees a connection only in shutdown(). That may wait, so
    it must not be called wherever the garbage collector happens to run (in a
    greenlet, or in a thread that holds a lock). This function may be called
    there, because it takes no lock of the threading module.
    """

    def close() -> None:
        with contextlib.suppress(Exception):
            for ioctx in ioctxs.values():
                ioctx.close()
            handle.shutdown()

    threads.start_native(close)
