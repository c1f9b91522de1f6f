# SPDX-License-Identifier: Apache-2.0

"""Names and ids of a pool's images, as cls_rbd keeps them.

None of it opens an image, which takes longer than all of it together.
"""

import contextlib
import errno

import rados

from nova_rbd_backend import errors
from nova_rbd_backend.storage import ceph_errors
from nova_rbd_backend.storage.pool_objects import (
    PoolObjects,
    decoded,
    encoded,
)

# cls_rbd.cc, 16.2: its omap has name_<image> -> image id and id_<image id> ->
# image, both as length-prefixed strings.
DIRECTORY = "rbd_directory"


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

    def namespaces(self) -> list[str]:
        """The pool's namespaces for RBD images.

        cls_rbd.cc, 16.2: the omap of rbd_namespace has name_<namespace>.
        """
        found = self.omap_get("rbd_namespace", "name_")
        return [key.removeprefix("name_") for key in found]

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
