# SPDX-License-Identifier: Apache-2.0

"""Names and ids of a pool's images, as cls_rbd keeps them.

No image is opened: opening one takes longer than all calls here together.
"""

import contextlib
import errno

import rados

from nova_rbd_backend import errors
from nova_rbd_backend.ceph import error_map
from nova_rbd_backend.ceph.access import Access
from nova_rbd_backend.ceph.encoding import decoded, encoded
from nova_rbd_backend.ceph.objects import Objects

# cls_rbd.cc, 16.2: its omap has name_<image> -> image id and id_<image id> ->
# image, both as length-prefixed strings.
_DIRECTORY = "rbd_directory"


class Directory:
    """What a pool knows of its images' names: rbd_directory and rbd_id."""

    def __init__(self, access: Access, objects: Objects):
        self._access = access
        self._objects = objects

    def names(self, prefix: str) -> list[str]:
        """Return the names that begin so, without listing the pool.

        librados: rados_read_op_omap_get_vals2.
        """
        return list(self.ids(prefix))

    def ids(self, prefix: str) -> dict[str, str]:
        """Return the ids of the images whose names begin so, by name."""
        entries = self._objects.omap_get(_DIRECTORY, f"name_{prefix}")
        return {
            key.removeprefix("name_"): decoded(value)
            for key, value in entries.items()
        }

    def exists(self, image: str) -> bool:
        """Return whether the name can be opened."""
        return self.image_id(image) is not None

    def image_id(self, image: str) -> str | None:
        """Return the id that opening the name leads to; None: no such image.

        cls_rbd: get_id, which librbd asks when it opens an image.
        """
        with self._access.reach("look up", image=image) as ioctx:
            try:
                _, answer = ioctx.execute(
                    f"rbd_id.{image}", "rbd", "get_id", b""
                )
            except rados.ObjectNotFound:
                return None
        return decoded(answer)

    def listed_id(self, image: str) -> str | None:
        """Return the id that the directory has for a name; None: not listed.

        Differs from image_id only where a process died half-way.
        """
        value = self._objects.omap_value(_DIRECTORY, f"name_{image}")
        return None if value is None else decoded(value)

    def listed_name(self, image_id: str) -> str | None:
        """Return the name that the directory has for an id; None: none."""
        value = self._objects.omap_value(_DIRECTORY, f"id_{image_id}")
        return None if value is None else decoded(value)

    def namespaces(self) -> list[str]:
        """Return the pool's namespaces for RBD images.

        cls_rbd.cc, 16.2: the omap of rbd_namespace has name_<namespace>.
        """
        found = self._objects.omap_get("rbd_namespace", "name_")
        return [key.removeprefix("name_") for key in found]

    # changes

    def publish(self, draft: str, image_id: str, name: str) -> None:
        """Give a closed image its name. If killed: finish_publishing.

        Does what librbd's RenameRequest does, in the same steps: rbd_rename
        opens the image, which takes longer than all else of a clone but the
        clone itself. The first step decides.

        :raises ImageExists: the name is taken
        :raises TakenOver: the draft has been removed meanwhile
        """
        self._rename_listed(draft, image_id, name)
        self._set_id(name, image_id)
        self.remove_id(draft)

    def finish_publishing(self, draft: str, name: str) -> None:
        """Finish what a process left that died in publish, if anything."""
        image_id = self.image_id(draft)
        if image_id is None or self.listed_id(draft) is not None:
            return
        if self.listed_id(name) == image_id:
            self._set_id(name, image_id)
            self.remove_id(draft)

    def remove_id(self, name: str) -> None:
        """Remove the way from a name to its image. Gone already: done."""
        with (
            contextlib.suppress(errors.ImageNotFound),
            self._access.reach(
                "remove the name", image=name, frees=True
            ) as ioctx,
        ):
            ioctx.remove_object(f"rbd_id.{name}")

    def remove_listed(self, name: str, image_id: str) -> None:
        """Remove an image from the directory. cls_rbd: dir_remove_image."""
        request = encoded(name) + encoded(image_id)
        with self._access.reach("unlist", image=name, frees=True) as ioctx:
            ioctx.execute(_DIRECTORY, "rbd", "dir_remove_image", request)

    def _rename_listed(self, draft: str, image_id: str, name: str) -> None:
        """cls_rbd: dir_rename_image, which refuses any other name or id."""
        request = b"".join(map(encoded, (draft, name, image_id)))
        with self._access.reach("name", image=name) as ioctx:
            try:
                ioctx.execute(_DIRECTORY, "rbd", "dir_rename_image", request)
            except rados.Error as error:
                if error_map.ceph_errno(error) in (errno.ENOENT, errno.ESTALE):
                    raise errors.TakenOver(
                        "the draft is gone",
                        operation="create",
                        pool=str(self._access),
                        image=name,
                    ) from error
                raise

    def _set_id(self, name: str, image_id: str) -> None:
        """cls_rbd: set_id. The name leads to this id already: done.

        :raises NoSpace: the pool is full; fails at once, since the image is
            there, and a purge that finishes a dead process's work must not
            wait
        """
        with self._access.reach("name", image=name, frees=True) as ioctx:
            try:
                with rados.WriteOpCtx() as op:
                    op.new(rados.LIBRADOS_CREATE_IDEMPOTENT)
                    op.execute("rbd", "set_id", encoded(image_id))
                    ioctx.operate_write_op(op, f"rbd_id.{name}")
            except rados.ObjectExists:
                if self.image_id(name) != image_id:
                    raise
