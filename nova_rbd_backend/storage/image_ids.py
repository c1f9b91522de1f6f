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

"""Names, ids and sizes of a pool's images, as cls_rbd keeps them.

None of it opens an image, which takes longer than all of it together.
"""

import contextlib
import errno
import struct
from collections.abc import Mapping

import rados

from nova_rbd_backend import errors
from nova_rbd_backend.image_options import CONF_KEY, Striping
from nova_rbd_backend.storage import ceph_errors
from nova_rbd_backend.storage.pool_objects import (
    PoolObjects,
    decoded,
    encoded,
)

# cls_rbd.cc, 16.2: its omap has name_<image> -> image id and id_<image id> ->
# image, both as length-prefixed strings.
DIRECTORY = "rbd_directory"
_METADATA = "metadata_"  # before its keys in a header's omap (cls_rbd.cc)
_NOSNAP = 0xFFFFFFFFFFFFFFFE  # the head (CEPH_NOSNAP, include/rados.h)


class ImageIds(PoolObjects):
    """What a pool knows of its images without opening them."""

    def names(self, prefix: str) -> list[str]:
        """Names of the images that begin so; the pool is not listed.

        librados: rados_read_op_omap_get_vals2.
        """
        return list(self.ids(prefix))

    def ids(self, prefix: str) -> dict[str, str]:
        """Ids of the images whose names begin so, by name."""
        entries = self.omap_get(DIRECTORY, f"name_{prefix}")
        return {
            key.removeprefix("name_"): decoded(value)
            for key, value in entries.items()
        }

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
        return decoded(answer)

    def listed_id(self, image: str) -> str | None:
        """The id behind a name in the pool's directory; None: not listed.

        Differs from image_id only where a process died half-way.
        """
        value = self.omap_value(DIRECTORY, f"name_{image}")
        return None if value is None else decoded(value)

    def listed_name(self, image_id: str) -> str | None:
        """The name that the directory has for an id; None: not listed."""
        value = self.omap_value(DIRECTORY, f"id_{image_id}")
        return None if value is None else decoded(value)

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
        for snap_id in self._snap_ids(image_id):
            request = struct.pack("<Q", snap_id)
            found = self._ask_header(image_id, "get_snapshot_name", request)
            if decoded(found) == snap:
                return self._size_at(image_id, snap_id)
        raise errors.SnapNotFound(image=image, snap=snap, **facts)

    def parent_id(self, image_id: str) -> tuple[int, str, str] | None:
        """Pool id, namespace and image id of the parent; None: has none.

        Does not open it. cls_rbd: parent_get.
        """
        answer = self._ask_header(image_id, "parent_get", b"")
        # ParentImageSpec (cls_rbd_types.h, 16.2), after version and length
        (pool_id,) = struct.unpack_from("<q", answer, 6)
        if pool_id < 0:
            return None
        namespace = decoded(answer[14:])
        start = 18 + len(namespace.encode())
        return int(pool_id), namespace, decoded(answer[start:])

    def has_clones(self, image_id: str) -> bool:
        """Whether an image has clones, be they in the trash themselves.

        Clones of the new format (v2). cls_rbd: get_snapcontext,
        children_list.

        :raises ImageNotFound: there is no such image
        """
        return any(
            self._clones_of_snap(image_id, snap_id)
            for snap_id in self._snap_ids(image_id)
        )

    def _clones_of_snap(self, image_id: str, snap_id: int) -> int:
        request = struct.pack("<Q", snap_id)
        try:
            answer = self._ask_header(image_id, "children_list", request)
        except errors.ImageNotFound:  # the snap has no entry: no clones
            return 0
        (count,) = struct.unpack_from("<I", answer)
        return int(count)

    def _snap_ids(self, image_id: str) -> tuple[int, ...]:
        answer = self._ask_header(image_id, "get_snapcontext", b"")
        (count,) = struct.unpack_from("<8xI", answer)
        return struct.unpack_from(f"<12x{count}Q", answer)

    def _size_at(self, image_id: str, snap_id: int) -> int:
        request = struct.pack("<Q", snap_id)
        answer = self._ask_header(image_id, "get_size", request)
        (size,) = struct.unpack_from("<xQ", answer)
        return int(size)

    def _ask_header(self, image_id: str, method: str, request: bytes) -> bytes:
        """Ask cls_rbd about an image. librados: rados_exec."""
        with self._reach("look at", image=image_id) as ioctx:
            _, answer = ioctx.execute(
                f"rbd_header.{image_id}", "rbd", method, request
            )
        return answer

    def striping(self, image_id: str) -> Striping:
        """How an image is striped, without opening it.

        cls_rbd: get_size, and what set_stripe_unit_count wrote.

        :raises ImageNotFound: there is no such image
        """
        request = struct.pack("<Q", _NOSNAP)
        order = self._ask_header(image_id, "get_size", request)[0]
        found = {
            key: struct.unpack("<Q", value)[0]
            for key, value in self.omap_get(
                f"rbd_header.{image_id}", "stripe_"
            ).items()
        }
        return Striping(
            1 << order,
            found.get("stripe_unit", 1 << order),
            found.get("stripe_count", 1),
        )

    def set_metadata(
        self,
        image_id: str,
        values: Mapping[str, str],
        conf: Mapping[str, str] | None = None,
    ) -> None:
        """Set all of an image's metadata in one step; other keys stay.

        rbd_metadata_set takes 3 ms for each key, this 1 ms for all. cls_rbd:
        metadata_set, metadata_remove.

        :param conf: metadata too: librbd's options, in the place of those
            that it has of its parent; None: those stay
        :raises ImageNotFound: there is no such image
        """
        removed: set[str] = set()
        if conf is not None:
            removed = self._conf_keys(image_id) - set(conf)
            values = {**values, **conf}
        with (
            self._reach("set metadata", image=image_id) as ioctx,
            rados.WriteOpCtx() as op,
        ):
            # Refused where there is no image: metadata_set would make one.
            op.execute("rbd", "get_object_prefix", b"")
            op.execute("rbd", "metadata_set", _encoded_map(values))
            for key in removed:
                op.execute("rbd", "metadata_remove", encoded(key))
            ioctx.operate_write_op(op, f"rbd_header.{image_id}")

    def _conf_keys(self, image_id: str) -> set[str]:
        found = self.omap_get(
            f"rbd_header.{image_id}", f"{_METADATA}{CONF_KEY}"
        )
        return {key.removeprefix(_METADATA) for key in found}

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
        request = b"".join(map(encoded, (draft, name, image_id)))
        with self._reach("name", image=name) as ioctx:
            try:
                ioctx.execute(DIRECTORY, "rbd", "dir_rename_image", request)
            except rados.Error as error:
                if ceph_errors.ceph_errno(error) in (
                    errno.ENOENT,
                    errno.ESTALE,
                ):
                    raise errors.TakenOver(
                        "the draft is gone",
                        operation="create",
                        pool=str(self),
                        image=name,
                    ) from error
                raise

    def _set_id(self, name: str, image_id: str) -> None:
        """cls_rbd: set_id; set to this id already: done.

        :raises NoSpace: the pool is full; not waited for, since the image is
            there, and a purge that finishes what died must not wait
        """
        with self._reach("name", image=name, frees=True) as ioctx:
            try:
                with rados.WriteOpCtx() as op:
                    op.new(rados.LIBRADOS_CREATE_IDEMPOTENT)
                    op.execute("rbd", "set_id", encoded(image_id))
                    ioctx.operate_write_op(op, f"rbd_id.{name}")
            except rados.ObjectExists:
                if self.image_id(name) != image_id:
                    raise

    def _remove_id(self, name: str) -> None:
        with (
            contextlib.suppress(errors.ImageNotFound),
            self._reach("remove the name", image=name, frees=True) as ioctx,
        ):
            ioctx.remove_object(f"rbd_id.{name}")


def _encoded_map(values: Mapping[str, str]) -> bytes:
    """Encode map<string, bufferlist> as include/encoding.h does."""
    parts = [struct.pack("<I", len(values))]
    for key, value in values.items():
        parts += (encoded(key), encoded(value))
    return b"".join(parts)
