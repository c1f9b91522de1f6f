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

"""The door to one pool: images by name, the trash, omap entries."""

import contextlib
import dataclasses
import datetime
import errno
import struct
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import rados
import rbd

from nova_rbd_backend import errors
from nova_rbd_backend.storage.disk import Disk

if TYPE_CHECKING:
    from nova_rbd_backend.storage.cluster import Cluster, Connection

# cls_rbd.cc, 16.2: rbd_directory's omap has name_<image> -> image id and
# id_<image id> -> image, both as length-prefixed strings.
_DIRECTORY = "rbd_directory"
_PAGE = 500
# cls::rbd::TrashImageState: NORMAL is 0, MOVING 1 (cls_rbd_types.h, 16.2)
_FROM_MOVING_TO_NORMAL = struct.pack("<BB", 0, 1)
_NOSNAP = 0xFFFFFFFFFFFFFFFE  # the head (CEPH_NOSNAP, include/rados.h)


@dataclasses.dataclass(frozen=True)
class TrashedImage:
    """An image in the trash; kept at least until kept_until."""

    image_id: str
    name: str
    kept_until: datetime.datetime


def _string(value: bytes) -> str:
    (length,) = struct.unpack_from("<I", value)
    return value[4 : 4 + length].decode()


def _encoded(text: str) -> bytes:
    return struct.pack("<I", len(text.encode())) + text.encode()


class Pool:
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

    # images by name

    def names(self, prefix: str) -> list[str]:
        """Names of the images that begin so; the pool is not listed.

        librados: rados_read_op_omap_get_vals2.
        """
        entries = self.omap_get(_DIRECTORY, f"name_{prefix}")
        return [key.removeprefix("name_") for key in entries]

    def exists(self, image: str) -> bool:
        """Whether the name can be opened."""
        return self.image_id(image) is not None

    def image_id(self, image: str) -> str | None:
        """The id that opening the name leads to; None: there is no such image.

        cls_rbd: get_id, as librbd's own open asks it.
        """
        with self._reach("look up", image=image) as ioctx:
            try:
                _, answer = ioctx.execute(
                    f"rbd_id.{image}", "rbd", "get_id", b""
                )
            except rados.ObjectNotFound:
                return None
        return _string(answer)

    def listed_id(self, image: str) -> str | None:
        """The id behind a name in the pool's directory; None: not listed.

        Differs from image_id only where a process died half-way.
        """
        value = self.omap_value(_DIRECTORY, f"name_{image}")
        return None if value is None else _string(value)

    def image_size_bytes(self, image_id: str) -> int:
        """The head's size, without opening it. cls_rbd: get_size."""
        return self._size_at(image_id, _NOSNAP)

    def snap_size_bytes(self, image: str, snap: str) -> int:
        """A snap's size, without opening the image, which takes 7 ms.

        cls_rbd: get_snapcontext, get_snapshot_name, get_size.

        :raises ImageNotFound: there is no such image
        :raises SnapNotFound: the image has no such snap
        """
        facts = {"operation": "get the size", "pool": str(self)}
        image_id = self.image_id(image)
        if image_id is None:
            raise errors.ImageNotFound(image=image, **facts)
        answer = self._ask_header(image_id, "get_snapcontext", b"")
        (count,) = struct.unpack_from("<8xI", answer)
        for snap_id in struct.unpack_from(f"<12x{count}Q", answer):
            request = struct.pack("<Q", snap_id)
            found = self._ask_header(image_id, "get_snapshot_name", request)
            if _string(found) == snap:
                return self._size_at(image_id, snap_id)
        raise errors.SnapNotFound(image=image, snap=snap, **facts)

    def _size_at(self, image_id: str, snap_id: int) -> int:
        request = struct.pack("<Q", snap_id)
        answer = self._ask_header(image_id, "get_size", request)
        (size,) = struct.unpack_from("<xQ", answer)
        return int(size)

    def _ask_header(self, image_id: str, method: str, request: bytes) -> bytes:
        """Ask cls_rbd about an image. librados: rados_exec."""
        with self._reach("get the size", image=image_id) as ioctx:
            _, answer = ioctx.execute(
                f"rbd_header.{image_id}", "rbd", method, request
            )
        return answer

    def create(self, name: str, size_bytes: int) -> None:
        """Make an empty image. librbd: rbd_create4.

        :raises ImageExists: the name is taken
        """
        with self._reach("create", image=name) as ioctx:
            rbd.RBD().create(
                ioctx,
                name,
                size_bytes,
                old_format=False,
                data_pool=self.data_pool,
            )

    def clone(
        self,
        parent_pool: "Pool",
        parent_image: str,
        parent_snap: str,
        name: str,
    ) -> None:
        """Make a copy-on-write clone of a snap. librbd: rbd_clone4.

        :raises ImageExists: the name is taken
        :raises ImageNotFound: no such parent
        :raises SnapNotFound: the parent has no such snap
        """
        connection = self.cluster.connection()
        try:
            with (
                parent_pool._reach(
                    "open the pool of", connection=connection
                ) as parent_ioctx,
                self._reach(
                    "clone", image=name, connection=connection
                ) as ioctx,
            ):
                rbd.RBD().clone(
                    parent_ioctx,
                    parent_image,
                    parent_snap,
                    ioctx,
                    name,
                    data_pool=self.data_pool,
                )
        except errors.ImageNotFound as error:
            missing = (
                errors.SnapNotFound
                if parent_pool.exists(parent_image)
                else errors.ImageNotFound
            )
            raise missing(
                f"wanted as parent of {self}/{name}",
                operation="clone",
                pool=str(parent_pool),
                image=parent_image,
                snap=parent_snap,
            ) from error

    @contextlib.contextmanager
    def open(
        self,
        name: str | None = None,
        snap: str | None = None,
        read_only: bool = True,
        image_id: str | None = None,
    ) -> Iterator[Disk]:
        """Open an image by name, or by id (also in the trash).

        librbd: rbd_open, rbd_open_read_only, rbd_open_by_id.

        :raises ImageNotFound: there is no such image
        :raises SnapNotFound: the image has no such snap
        """
        shown = name or image_id
        connection = self.cluster.connection()
        with self._reach("open", image=shown, connection=connection) as ioctx:
            image = rbd.Image(
                ioctx, name=name, read_only=read_only, image_id=image_id
            )
        disk = Disk(self, connection, image, str(shown))
        try:
            if snap is not None:
                disk.show_snap(snap)
            yield disk
        except BaseException:
            # What went wrong inside says more than what follows from it.
            with contextlib.suppress(Exception):
                image.close()
            raise
        with self._reach("close", image=shown, connection=connection):
            image.close()

    def remove(self, name: str) -> None:
        """Remove an image at once; a half-made one too. Gone: done.

        librbd: rbd_remove.

        :raises DiskBusy: a client has it open
        :raises HasSnaps: it has snaps
        """
        with (
            contextlib.suppress(errors.ImageNotFound),
            self._reach("remove", image=name) as ioctx,
        ):
            rbd.RBD().remove(ioctx, name)

    def remove_unlisted(self, name: str) -> None:
        """Remove what is left of a name that the directory does not list.

        A process died in rbd_create or in publish. An image that has another
        name, or is in the trash, stays: only this way to it goes.
        """
        image_id = self.image_id(name)
        if image_id is None or self._has_a_place(image_id):
            self._remove_id(name)
        else:
            self.remove(name)

    def _has_a_place(self, image_id: str) -> bool:
        listed = self.omap_value(_DIRECTORY, f"id_{image_id}")
        return listed is not None or self.trash_get(image_id) is not None

    # drafts

    def publish(self, draft: str, image_id: str, name: str) -> None:
        """Give a closed image its name. Killed half-way: finish_publishing.

        Does what librbd's RenameRequest does, in its own steps: rbd_rename
        opens the image for it, which takes longer than all else of a clone
        but the clone itself. The first step decides.

        :raises ImageExists: the name is taken
        :raises TakenOver: the draft has been removed meanwhile
        """
        self._rename_listed(draft, image_id, name)
        self._set_id(name, image_id)
        self._remove_id(draft)

    def finish_publishing(self, draft: str, name: str) -> None:
        """Finish what a process left that died in publish; nothing: done."""
        image_id = self.image_id(draft)
        if image_id is None or self.listed_id(draft) is not None:
            return
        if self.listed_id(name) == image_id:
            self._set_id(name, image_id)
            self._remove_id(draft)

    def _rename_listed(self, draft: str, image_id: str, name: str) -> None:
        """cls_rbd: dir_rename_image, which refuses all but this very pair."""
        request = b"".join(map(_encoded, (draft, name, image_id)))
        with self._reach("name", image=name) as ioctx:
            try:
                ioctx.execute(_DIRECTORY, "rbd", "dir_rename_image", request)
            except rados.Error as error:
                if errors.ceph_errno(error) in (errno.ENOENT, errno.ESTALE):
                    raise errors.TakenOver(
                        "the draft is gone",
                        operation="create",
                        pool=str(self),
                        image=name,
                    ) from error
                raise

    def _set_id(self, name: str, image_id: str) -> None:
        """cls_rbd: set_id; set to this id already: done."""
        with self._reach("name", image=name) as ioctx:
            try:
                with rados.WriteOpCtx() as op:
                    op.new(rados.LIBRADOS_CREATE_IDEMPOTENT)
                    op.execute("rbd", "set_id", _encoded(image_id))
                    ioctx.operate_write_op(op, f"rbd_id.{name}")
            except rados.ObjectExists:
                if self.image_id(name) != image_id:
                    raise

    def _remove_id(self, name: str) -> None:
        with (
            contextlib.suppress(errors.ImageNotFound),
            self._reach("name", image=name) as ioctx,
        ):
            ioctx.remove_object(f"rbd_id.{name}")

    # the trash

    def trash_move(self, name: str, retention_seconds: int = 0) -> None:
        """Free the name; the image stays in the trash under its id.

        Works while it has snaps, clones or watchers. librbd:
        rbd_trash_move.

        :raises ImageNotFound: there is no such image
        :raises DiskBusy: the owner of its lock does not give it up
        """
        with self._reach("move to the trash", image=name) as ioctx:
            rbd.RBD().trash_move(ioctx, name, retention_seconds)

    def trash_remove(self, image_id: str) -> None:
        """Free the space of a trashed image. librbd: rbd_trash_remove.

        :raises ImageNotFound: it is not in the trash
        :raises NotPermitted: its retention is not over
        :raises HasSnaps: it has snaps or clones
        :raises DiskBusy: a client has it open
        :raises MoveUnfinished: a trash_move has not come to its end
        """
        with self._reach("remove from the trash", image=image_id) as ioctx:
            rbd.RBD().trash_remove(ioctx, image_id)

    def trash_restore(self, image_id: str, name: str) -> None:
        """Give a trashed image a name again. librbd: rbd_trash_restore.

        :raises ImageNotFound: it is not in the trash
        :raises ImageExists: the name is taken
        """
        with self._reach("restore from the trash", image=name) as ioctx:
            rbd.RBD().trash_restore(ioctx, image_id, name)

    def trash_list(self) -> list[TrashedImage]:
        """All of the pool's trash. librbd: rbd_trash_list."""
        with self._reach("list the trash") as ioctx:
            return [_trashed(entry) for entry in rbd.RBD().trash_list(ioctx)]

    def trash_finish_move(self, image_id: str, name: str) -> None:
        """Finish a trash_move that died before its last step.

        cls_rbd: dir_remove_image, trash_state_set, as librbd's Trash::move.
        """
        with self._reach("finish the move of", image=name) as ioctx:
            if self.listed_id(name) == image_id:
                request = _encoded(name) + _encoded(image_id)
                ioctx.execute(_DIRECTORY, "rbd", "dir_remove_image", request)
            if self.image_id(name) == image_id:
                self._remove_id(name)
            request = _encoded(image_id) + _FROM_MOVING_TO_NORMAL
            ioctx.execute("rbd_trash", "rbd", "trash_state_set", request)

    def trash_get(self, image_id: str) -> TrashedImage | None:
        """One trashed image; None: not there. librbd: rbd_trash_get."""
        try:
            with self._reach("look into the trash", image=image_id) as ioctx:
                return _trashed(rbd.RBD().trash_get(ioctx, image_id))
        except errors.ImageNotFound:
            return None

    # omap entries

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

    def set_metadata(self, image_id: str, values: Mapping[str, str]) -> None:
        """Set all of an image's metadata in one step. cls_rbd: metadata_set.

        rbd_metadata_set takes 3 ms for each key, this 1 ms for all.
        """
        with self._reach("set metadata", image=image_id) as ioctx:
            ioctx.execute(
                f"rbd_header.{image_id}",
                "rbd",
                "metadata_set",
                _encoded_map(values),
            )


def _trashed(entry: Mapping[str, object]) -> TrashedImage:
    until = entry["deferment_end_time"]
    assert isinstance(until, datetime.datetime)
    # librbd.pyx makes naive datetimes of UTC (utcfromtimestamp, 16.2)
    until = until.replace(tzinfo=datetime.UTC)
    return TrashedImage(str(entry["id"]), str(entry["name"]), until)


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


def _encoded_map(values: Mapping[str, str]) -> bytes:
    """Encode map<string, bufferlist> as include/encoding.h does."""
    parts = [struct.pack("<I", len(values))]
    for key, value in values.items():
        parts += (_encoded(key), _encoded(value))
    return b"".join(parts)
