# SPDX-License-Identifier: Apache-2.0

"""Keep omap entries and leases in objects of a pool. All calls block."""

import errno

import rados

from nova_rbd_backend.ceph import error_map, layouts
from nova_rbd_backend.ceph.access import Access
from nova_rbd_backend.ceph.connection import Connection

_PAGE = 500
# An OSD may be set to give fewer entries at a time than it is asked for
# (osd_max_omap_entries_per_request), and python-rados does not tell whether
# there are more. No OSD is set to less than cls_rbd reads at a time.
_SMALLEST_PAGE = 64
_MAY_RENEW = 1  # LIBRADOS_LOCK_FLAG_MAY_RENEW


class Objects:
    """The objects of one pool, by their names."""

    def __init__(self, access: Access):
        self._access = access

    def omap_get(self, key: str, prefix: str) -> dict[str, bytes]:
        """Return an object's omap entries whose keys have this prefix.

        Empty if there is no such object. librados:
        rados_read_op_omap_get_vals2.
        """
        entries: dict[str, bytes] = {}
        after = ""
        while True:
            page = self._omap_page(key, prefix, after)
            entries.update(page)
            if len(page) < _SMALLEST_PAGE:
                return entries
            after = max(page)

    def _omap_page(
        self, key: str, prefix: str, after: str
    ) -> dict[str, bytes]:
        with (
            self._access.reach("list entries", kind="object") as ioctx,
            rados.ReadOpCtx() as op,
        ):
            found, _ = ioctx.get_omap_vals(op, after, prefix, _PAGE)
            try:
                ioctx.operate_read_op(op, key)
            except rados.ObjectNotFound:
                return {}
            return {name: value or b"" for name, value in found}

    def omap_value(self, key: str, name: str) -> bytes | None:
        """Return one omap entry; None: there is no such entry.

        librados: rados_read_op_omap_get_vals_by_keys.
        """
        with (
            self._access.reach("read an entry", kind="object") as ioctx,
            rados.ReadOpCtx() as op,
        ):
            found, _ = ioctx.get_omap_vals_by_keys(op, (name,))
            try:
                ioctx.operate_read_op(op, key)
            except rados.ObjectNotFound:
                return None
            # python-rados 16.2 gives None for an empty value.
            return next((value or b"" for _, value in found), None)

    def omap_swap(
        self,
        key: str,
        name: str,
        old: str | None,
        new: str | None,
        frees: bool = False,
    ) -> bool:
        """Change one omap entry if it still is ``old``; return whether it was.

        Creates the object if it is missing. Atomic. librados:
        rados_write_op_omap_cmp in the same write.

        :param old: None: no entry
        :param new: None: remove the entry
        :param frees: write to a full pool too, to free space
        :raises NoSpace: the object is missing, and the pool is full
        """
        with self._access.reach(
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
        connection: Connection | None = None,
        frees: bool = False,
    ) -> bool:
        """Take or renew an exclusive right that an object keeps.

        The right ends by itself, by the OSD's clock. Creates the object if it
        is missing. librados: rados_lock_exclusive.

        :param holder: how ``rados lock info`` describes the holder
        :param connection: to renew a lease, the connection that took it
        :param frees: take it in a full pool too, for work that frees space
        :returns: False if another client, or another cookie, has it
        :raises NoSpace: the object is missing, and the pool is full
        """
        with self._access.reach(
            "lease", kind="object", connection=connection, frees=frees
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
        connection: Connection | None = None,
    ) -> bool:
        """Give a lease back and remove its record, in one step.

        Removes the lock's xattr, which cls_lock's own unlock leaves.
        cls_lock: assert_locked, in the same write.

        :returns: False if we do not have it any more
        """
        request = layouts.assert_locked(name, cookie)
        with self._access.reach(
            "end the lease", kind="object", connection=connection, frees=True
        ) as ioctx:
            try:
                with rados.WriteOpCtx() as op:
                    op.execute("lock", "assert_locked", request)
                    op.rm_xattr(layouts.lease_xattr(name))
                    ioctx.operate_write_op(op, key)
            except (rados.ObjectBusy, rados.ObjectNotFound):
                return False
        return True

    def leases(self, key: str) -> list[str]:
        """Return the names of the leases. librados: rados_getxattrs."""
        with self._access.reach("list the leases", kind="object") as ioctx:
            try:
                xattrs = [xattr for xattr, _ in ioctx.get_xattrs(key)]
            except rados.ObjectNotFound:
                return []
        return [
            layouts.lease_of_xattr(xattr)
            for xattr in xattrs
            if xattr.startswith(layouts.lease_xattr(""))
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
            if error_map.ceph_errno(error) == errno.ECANCELED:
                return False
            raise
    return True
