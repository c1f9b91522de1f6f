# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""The door to a pool's own objects: omap entries, and the way to its ioctx."""

import contextlib
import errno
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

import rados

from nova_rbd_backend import errors

if TYPE_CHECKING:
    from nova_rbd_backend.storage.cluster import Cluster, Connection

_PAGE = 500


def decoded(value: bytes) -> str:
    """Read a string as include/encoding.h writes it."""
    (length,) = struct.unpack_from("<I", value)
    return value[4 : 4 + length].decode()


def encoded(text: str) -> bytes:
    """Write a string as include/encoding.h does."""
    return struct.pack("<I", len(text.encode())) + text.encode()


class PoolObjects:
    """A pool (and namespace) of a cluster. All calls block.

    :ivar data_pool: where new images put their data, when not here
    """

    def __init__(
        self,
        cluster: "Cluster",
        name: str,
        namespace: str = "",
        data_pool: str | None = None,
    ):
        self.cluster = cluster
        self.name = name
        self.namespace = namespace
        self.data_pool = data_pool

    def __str__(self) -> str:
        return "/".join(part for part in (self.name, self.namespace) if part)

    @contextlib.contextmanager
    def _reach(
        self,
        operation: str,
        image: str | None = None,
        snap: str | None = None,
        kind: str = "",
        connection: "Connection | None" = None,
    ) -> Iterator[rados.Ioctx]:
        connection = connection or self.cluster.connection()
        ioctx = connection.open_ioctxs.get((self.name, self.namespace))
        if ioctx is None:
            with self.cluster.reach(operation, connection, pool=self.name):
                ioctx = connection.ioctx(self.name, self.namespace)
        with self.cluster.reach(
            operation,
            connection,
            pool=str(self),
            image=image,
            snap=snap,
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
        self, key: str, name: str, old: str | None, new: str | None
    ) -> bool:
        """Change one omap entry if it still is ``old``; whether it was.

        None: no entry. The object is made when it is missing. Atomic:
        librados: rados_write_op_omap_cmp in the same write.
        """
        with self._reach("write an entry", kind="object") as ioctx:
            try:
                return _swap(ioctx, key, name, old, new)
            except rados.ObjectNotFound:
                with rados.WriteOpCtx() as op:
                    op.new(rados.LIBRADOS_CREATE_IDEMPOTENT)
                    ioctx.operate_write_op(op, key)
                return _swap(ioctx, key, name, old, new)


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
            if errors.ceph_errno(error) == errno.ECANCELED:
                return False
            raise
    return True
