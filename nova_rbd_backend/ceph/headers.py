# SPDX-License-Identifier: Apache-2.0

"""The headers of a pool's images, as cls_rbd keeps them, by image id.

No image is opened: opening one takes longer than all calls here together.
"""

import datetime
from collections.abc import Iterable, Mapping

import rados

from nova_rbd_backend import errors
from nova_rbd_backend.ceph import layouts
from nova_rbd_backend.ceph.access import Access
from nova_rbd_backend.ceph.objects import Objects
from nova_rbd_backend.image_options import FEATURES, Striping


class Headers:
    """The rbd_header objects of a pool. All calls block.

    Unless its docstring says otherwise, a method raises ImageNotFound if
    there is no such image.
    """

    def __init__(self, access: Access, objects: Objects):
        self._access = access
        self._objects = objects

    def size_bytes(self, image_id: str) -> int:
        """Return the size of the head. cls_rbd: get_size."""
        return self._size_and_order(image_id, layouts.HEAD)[0]

    def snap_size_bytes(self, image_id: str, snap: str) -> int:
        """Return the size of a snap.

        Opening the image would take 7 ms. cls_rbd: get_snapcontext,
        get_snapshot_name, get_size.

        :raises SnapNotFound: the image has no such snap; names it by its id
        """
        for snap_id in self._snap_ids(image_id):
            request = layouts.snap_id(snap_id)
            found = self._ask(image_id, "get_snapshot_name", request)
            if layouts.decoded(found) == snap:
                return self._size_and_order(image_id, snap_id)[0]
        raise errors.SnapNotFound(
            operation="get the size",
            pool=str(self._access),
            image=image_id,
            snap=snap,
        )

    def has_exclusive_lock(self, image_id: str) -> bool:
        """Return whether an image has this feature. cls_rbd: get_features."""
        return self._has(image_id, "exclusive-lock")

    def has_journal(self, image_id: str) -> bool:
        """Return whether librbd records each change of an image in a journal.

        A change without librbd is missing in the copies that rbd-mirror makes
        from the journal. cls_rbd: get_features.
        """
        return self._has(image_id, "journaling")

    def _has(self, image_id: str, feature: str) -> bool:
        request = layouts.snap_id(layouts.HEAD)
        answer = self._ask(image_id, "get_features", request)
        return bool(layouts.features(answer) & FEATURES[feature])

    def parent_id(self, image_id: str) -> tuple[int, str, str] | None:
        """Return pool id, namespace, id of the parent. cls_rbd: parent_get."""
        return layouts.parent_spec(self._ask(image_id, "parent_get"))

    def has_clones(self, image_id: str) -> bool:
        """Return whether an image has clones (v2), in the trash or not.

        Takes as long with 10 000 clones as with one: their ids are not read.
        librados: rados_read_op_omap_get_keys2; see clone_ids.
        """
        with (
            self._access.reach("look at", image=image_id) as ioctx,
            rados.ReadOpCtx() as op,
        ):
            found, _ = ioctx.get_omap_keys(op, layouts.CLONES, 1)
            ioctx.operate_read_op(op, layouts.header(image_id))
            return any(key.startswith(layouts.CLONES) for key, _ in found)

    def clone_ids(self, image_id: str) -> list[tuple[int, str, str]]:
        """Return pool id, namespace and image id of each clone.

        Includes clones in the trash. Returns no clones if there is no such
        image. The omap of the header has an entry for each snap, as long as
        it has clones (cls_rbd.cc, 16.2).
        """
        found = self._objects.omap_get(
            layouts.header(image_id), layouts.CLONES
        )
        return [
            child
            for value in found.values()
            for child in layouts.clone_specs(value)
        ]

    def times(
        self, image_id: str
    ) -> tuple[datetime.datetime | None, datetime.datetime | None]:
        """Return when an image was created, and when it was last used.

        Ceph 13 does not note these times: None, as for an image that does not
        exist. The omap of the header has a
        utime_t for each (cls_rbd.cc, 16.2).
        """
        header = layouts.header(image_id)
        times = []
        for what in ("create", "access", "modify"):
            value = self._objects.omap_value(header, layouts.time_key(what))
            times.append(None if value is None else layouts.utime(value))
        return times[0], max(filter(None, times), default=None)

    def striping(self, image_id: str) -> Striping:
        """Return how an image is striped.

        cls_rbd: get_size, and the omap entries of set_stripe_unit_count.
        """
        _, order = self._size_and_order(image_id, layouts.HEAD)
        unit, count = layouts.striping(
            self._objects.omap_get(layouts.header(image_id), layouts.STRIPES)
        )
        return Striping(1 << order, unit or 1 << order, count or 1)

    def metadata(self, image_id: str, prefix: str = "") -> dict[str, str]:
        """Return an image's metadata; empty if there is no such image.

        The omap of the header has an entry for each key (cls_rbd.cc, 16.2).

        :param prefix: of the keys
        """
        found = self._objects.omap_get(
            layouts.header(image_id), layouts.metadata_key(prefix)
        )
        return {
            layouts.metadata_of_key(key): value.decode(errors="replace")
            for key, value in found.items()
        }

    def set_metadata(
        self,
        image_id: str,
        values: Mapping[str, str],
        removed: Iterable[str] = (),
    ) -> None:
        """Set values and remove keys in one step; other keys stay.

        Not for an image with a journal, unless its copies may do without
        them. cls_rbd: metadata_set, metadata_remove.
        """
        with (
            self._access.reach("set metadata", image=image_id) as ioctx,
            rados.WriteOpCtx() as op,
        ):
            # Fails if there is no image: metadata_set would create a header.
            op.execute("rbd", "get_object_prefix", b"")
            op.execute("rbd", "metadata_set", layouts.metadata(values))
            for key in removed:
                op.execute("rbd", "metadata_remove", layouts.encoded(key))
            ioctx.operate_write_op(op, layouts.header(image_id))

    def _snap_ids(self, image_id: str) -> tuple[int, ...]:
        return layouts.snap_ids(self._ask(image_id, "get_snapcontext"))

    def _size_and_order(self, image_id: str, snap_id: int) -> tuple[int, int]:
        request = layouts.snap_id(snap_id)
        answer = self._ask(image_id, "get_size", request)
        return layouts.size_and_order(answer)

    def _ask(self, image_id: str, method: str, request: bytes = b"") -> bytes:
        key = layouts.header(image_id)
        return self._access.execute(
            "look at", image_id, key, ("rbd", method), request
        )
