# SPDX-License-Identifier: Apache-2.0

"""The door to a pool's own objects: omap entries, and the way to its ioctx."""

import contextlib
import errno
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

import rados

from nova_rbd_backend.image_options import ImageOptions
from nova_rbd_backend.storage import ceph_errors

if TYPE_CHECKING:
    from nova_rbd_backend.storage.cluster import Cluster, Connection

NO_OPTIONS = ImageOptions()
_PAGE = 500
# cls_lock.cc, cls_lock_types.h (16.2)
_LOCK_XATTR = "lock."
_EXCLUSIVE = 1
_MAY_RENEW = 1  # LIBRADOS_LOCK_FLAG_MAY_RENEW


def decoded(value: bytes) -> str:
    """Read a string as include/encoding.h writes it."""
    (length,) = struct.unpack_from("<I", value)
    return value[4 : 4 + length].decode()


def encoded(text: str) -> bytes:
    """Write a string as include/encoding.h does."""
    return struct.pack("<I", len(text.encode())) + text.encode()


def sealed(*parts: str | bytes) -> bytes:
    """ENCODE_START(1, 1) of include/encoding.h around strings and bytes."""
    body = b"".join(
        encoded(part) if isinstance(part, str) else part for part in parts
    )
    return struct.pack("<BBI", 1, 1, len(body)) + body


class PoolObjects:
    """A pool (and namespace) of a cluster. All calls block.

    :ivar options: what new images get
    """

    def __init__(
        self,
        cluster: "Cluster",
        name: str,
        namespace: str = "",
        options: ImageOptions = NO_OPTIONS,
    ):
        self.cluster = cluster
        self.name = name
        self.namespace = namespace
        self.options = options

    def __str__(self) -> str:
        return "/".join(part for part in (self.name, self.namespace) if part)

    @contextlib.contextmanager
    def _reach(
        self,
        operation: str,
        image: str | None = None,
        kind: str = "",
        connection: "Connection | None" = None,
        frees: bool = False,
    ) -> Iterator[rados.Ioctx]:
        connection = connection or self.cluster.connection()
        key = (self.name, self.namespace, frees)
        ioctx = connection.open_ioctxs.get(key)
        if ioctx is None:
            with self.cluster.reach(operation, connection, pool=self.name):
                ioctx = connection.ioctx(*key)
        with self.cluster.reach(
            operation,
            connection,
            pool=str(self),
            image=image,
            kind=kind,
        ):
            yield ioctx

    def omap_get(self, key: str, prefix: str) -> dict[str, bytes]:
        """Omap entries of an object whose keys begin so; none: empty."""
        entries: dict[str, bytes] = {}
        after = ""
        while True:
            page = self._omap_page(key, prefix, after)
            entries.update(page)
            if len(page) < _PAGE:
                return entries
            after = max(page)

    def _omap_page(
        self, key: str, prefix: str, after: str
    ) -> dict[str, bytes]:
        with (
            self._reach("list entries", kind="object") as ioctx,
            rados.ReadOpCtx() as op,
        ):
            found, _ = ioctx.get_omap_vals(op, after, prefix, _PAGE)
            try:
                ioctx.operate_read_op(op, key)
            except rados.ObjectNotFound:
                return {}
            return dict(found)

    def omap_value(self, key: str, name: str) -> bytes | None:
        """One omap entry; None: not there."""
        with (
            self._reach("read an entry", kind="object") as ioctx,
            rados.ReadOpCtx() as op,
        ):
            found, _ = ioctx.get_omap_vals_by_keys(op, (name,))
            try:
                ioctx.operate_read_op(op, key)
            except rados.ObjectNotFound:
                return None
            return dict(found).get(name)

    def omap_swap(
        self,
        key: str,
        name: str,
        old: str | None,
        new: str | None,
        frees: bool = False,
    ) -> bool:
        """Change one omap entry if it still is ``old``; whether it was.

        None: no entry. The object is made when it is missing. Atomic:
        librados: rados_write_op_omap_cmp in the same write.

        :param frees: in a full pool too: it goes with what gives space back
        :raises NoSpace: the object is missing, and the pool full
        """
        with self._reach(
            "write an entry", kind="object", frees=frees
        ) as ioctx:
            try:
                return _swap(ioctx, key, name, old, new)
            except rados.ObjectNotFound:
                with rados.WriteOpCtx() as op:
                    op.new(rados.LIBRADOS_CREATE_IDEMPOTENT)
                    ioctx.operate_write_op(op, key)
                return _swap(ioctx, key, name, old, new)

    def lease(
        self,
        key: str,
        name: str,
        cookie: str,
        seconds: int,
        holder: str,
        connection: "Connection | None" = None,
    ) -> bool:
        """Take or renew an exclusive right that an object keeps.

        It ends by itself, by the OSD's clock. The object is made when it is
        missing. librados: rados_lock_exclusive.

        :param holder: who it is, for ``rados lock info``
        :param connection: to renew it: the one that it was taken over
        :returns: False: another client or cookie has it
        """
        with self._reach(
            "lease", kind="object", connection=connection
        ) as ioctx:
            try:
                ioctx.lock_exclusive(
                    key, name, cookie, holder, seconds, _MAY_RENEW
                )
            except (rados.ObjectBusy, rados.ObjectExists):
                return False
        return True

    def end_lease(
        self,
        key: str,
        name: str,
        cookie: str,
        connection: "Connection | None" = None,
    ) -> bool:
        """Give a lease back and forget it, in one step.

        cls_lock: assert_locked, in the write that removes the lock's xattr;
        its own unlock leaves that.

        :returns: False: we do not have it any more
        """
        with self._reach(
            "end the lease", kind="object", connection=connection
        ) as ioctx:
            kind = struct.pack("<B", _EXCLUSIVE)
            request = sealed(name, kind, cookie, "")
            try:
                with rados.WriteOpCtx() as op:
                    op.execute("lock", "assert_locked", request)
                    op.rm_xattr(f"{_LOCK_XATTR}{name}")
                    ioctx.operate_write_op(op, key)
            except (rados.ObjectBusy, rados.ObjectNotFound):
                return False
        return True

    def leases(self, key: str) -> list[str]:
        """Names of the leases an object keeps, of dead holders too."""
        with self._reach("list the leases", kind="object") as ioctx:
            try:
                xattrs = [name for name, _ in ioctx.get_xattrs(key)]
            except rados.ObjectNotFound:
                return []
        return [
            name.removeprefix(_LOCK_XATTR)
            for name in xattrs
            if name.startswith(_LOCK_XATTR)
        ]


def _swap(
    ioctx: rados.Ioctx, key: str, name: str, old: str | None, new: str | None
) -> bool:
    with rados.WriteOpCtx() as op:
        # A missing entry compares as empty (PrimaryLogPG.cc, OMAP_CMP).
        op.omap_cmp(name, old or "", rados.LIBRADOS_CMPXATTR_OP_EQ)
        if new is None:
            ioctx.remove_omap_keys(op, (name,))
        else:
            ioctx.set_omap(op, (name,), (new.encode(),))
        try:
            ioctx.operate_write_op(op, key)
        except rados.Error as error:
            if ceph_errors.ceph_errno(error) == errno.ECANCELED:
                return False
            raise
    return True
