# SPDX-License-Identifier: Apache-2.0

"""What cls_rbd keeps of an image in its header, and no image is opened for it.

Opening takes longer than all of it together.
"""

import datetime
import struct
from collections.abc import Mapping

import rados

from nova_rbd_backend import errors
from nova_rbd_backend.image_options import CONF_KEY, Striping
from nova_rbd_backend.storage.image_ids import ImageIds
from nova_rbd_backend.storage.pool_objects import decoded, encoded

_METADATA = "metadata_"  # before its keys in a header's omap (cls_rbd.cc)
_NOSNAP = 0xFFFFFFFFFFFFFFFE  # the head (CEPH_NOSNAP, include/rados.h)


class ImageHeaders(ImageIds):
    """A pool's images, by their ids."""

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

    def clone_ids(self, image_id: str) -> list[tuple[int, str, str]]:
        """Pool id, namespace and image id of each clone of an image's snaps.

        Also of those in the trash; no such image: none. cls_rbd.cc, 16.2: the
        omap of the header has snap_children_<snap id>.
        """
        found = self.omap_get(_header(image_id), "snap_children_")
        return [child for value in found.values() for child in _specs(value)]

    def times(
        self, image_id: str
    ) -> tuple[datetime.datetime | None, datetime.datetime | None]:
        """When it was made, and used last; None: before Ceph 14 noted it.

        cls_rbd.cc, 16.2: the omap of the header has a utime_t for each.
        """
        found = [
            self.omap_value(_header(image_id), f"{what}_timestamp")
            for what in ("create", "access", "modify")
        ]
        times = [None if each is None else _time(each) for each in found]
        return times[0], max(filter(None, times), default=None)

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
                _header(image_id), "rbd", method, request
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
                _header(image_id), "stripe_"
            ).items()
        }
        return Striping(
            1 << order,
            found.get("stripe_unit", 1 << order),
            found.get("stripe_count", 1),
        )

    def metadata(self, image_id: str) -> dict[str, str]:
        """An image's metadata; no such image: empty.

        cls_rbd.cc, 16.2: the omap of the header has metadata_<key>.
        """
        found = self.omap_get(_header(image_id), _METADATA)
        return {
            key.removeprefix(_METADATA): value.decode(errors="replace")
            for key, value in found.items()
        }

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
            ioctx.operate_write_op(op, _header(image_id))

    def _conf_keys(self, image_id: str) -> set[str]:
        found = self.omap_get(_header(image_id), f"{_METADATA}{CONF_KEY}")
        return {key.removeprefix(_METADATA) for key in found}


def _header(image_id: str) -> str:
    return f"rbd_header.{image_id}"


def _specs(value: bytes) -> list[tuple[int, str, str]]:
    """Read set<ChildImageSpec>, as pool id, namespace, image id.

    cls_rbd_types.h, 16.2; each after a version, the oldest that can read it,
    and its length.
    """
    (number,) = struct.unpack_from("<I", value)
    specs, at = [], 4
    for _ in range(number):
        length, pool_id = struct.unpack_from("<2xIq", value, at)
        image_id = decoded(value[at + 14 :])
        namespace = decoded(value[at + 18 + len(image_id.encode()) :])
        specs.append((pool_id, namespace, image_id))
        at += 6 + length
    return specs


def _time(value: bytes) -> datetime.datetime:
    seconds, _ = struct.unpack_from("<II", value)
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def _encoded_map(values: Mapping[str, str]) -> bytes:
    """Encode map<string, bufferlist> as include/encoding.h does."""
    parts = [struct.pack("<I", len(values))]
    for key, value in values.items():
        parts += (encoded(key), encoded(value))
    return b"".join(parts)
