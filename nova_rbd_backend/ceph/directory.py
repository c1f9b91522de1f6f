# SPDX-License-Identifier: Apache-2.0

"""The names and ids of a pool's images, as cls_rbd keeps them.

No image is opened: opening one takes longer than all calls here together.
"""

import contextlib

import rados

from nova_rbd_backend import errors, names
from nova_rbd_backend.ceph import error_map, layouts
from nova_rbd_backend.ceph.access import Access
from nova_rbd_backend.ceph.objects import Objects

# What a compare in a write fails with: the offset of the first byte that
# differs, above all errnos (MAX_ERRNO, include/rados.h, 16.2). So does the
# compare with an object that does not exist.
_FIRST_DIFFERENCE = 4095


class Directory:
    """The rbd_directory object of a pool, and its rbd_id objects."""

    def __init__(self, access: Access, objects: Objects):
        self._access = access
        self._objects = objects

    def names(self, prefix: str) -> list[str]:
        """Return the image names with this prefix, without listing the pool.

        librados: rados_read_op_omap_get_vals2.
        """
        return list(self.ids(prefix))

    def ids(self, prefix: str) -> dict[str, str]:
        """Return the ids of the images whose names have this prefix, by name.

        librados: rados_read_op_omap_get_vals2.
        """
        entries = self._objects.omap_get(
            layouts.DIRECTORY, layouts.id_by_name(prefix)
        )
        return {
            layouts.name_of_key(key): layouts.decoded(value)
            for key, value in entries.items()
        }

    def exists(self, image: str) -> bool:
        """Return whether an image can be opened by this name."""
        return self.image_id(image) is not None

    def image_id(self, image: str) -> str | None:
        """Return the id of the image behind a name; None: no such image.

        cls_rbd: get_id, which librbd calls when it opens an image.
        """
        try:
            answer = self._access.execute(
                "look up", image, layouts.id_object(image), ("rbd", "get_id")
            )
        except errors.ImageNotFound:
            return None
        return layouts.decoded(answer)

    def existing_id(self, image: str, operation: str) -> str:
        """Return the id of an image, for an operation on it.

        :raises ImageNotFound: there is no such image
        """
        if (image_id := self.image_id(image)) is not None:
            return image_id
        raise errors.ImageNotFound(
            operation=operation, pool=str(self._access), image=image
        )

    def listed_id(self, image: str) -> str | None:
        """Return the id that the directory has for a name; None: not listed.

        It differs from image_id only where a process died between two steps.
        """
        return self._listed(layouts.id_by_name(image))

    def listed_name(self, image_id: str) -> str | None:
        """Return the name that the directory has for an id, or None."""
        return self._listed(layouts.name_by_id(image_id))

    def _listed(self, key: str) -> str | None:
        value = self._objects.omap_value(layouts.DIRECTORY, key)
        return None if value is None else layouts.decoded(value)

    def namespaces(self) -> list[str]:
        """Return the pool's namespaces for RBD images.

        The omap of rbd_namespace has a key for each (cls_rbd.cc, 16.2).
        """
        found = self._objects.omap_get(
            layouts.NAMESPACES, layouts.id_by_name("")
        )
        return [layouts.name_of_key(key) for key in found]

    def publish(self, draft: str, image_id: str, name: str) -> None:
        """Give a closed image its name.

        Takes the steps of librbd's RenameRequest without rbd_rename, which
        opens the image; that takes longer than any part of a clone except the
        clone itself. The steps are in librbd's order, so that the name is
        taken for every client from the first step on. If this process dies,
        finish_publishing completes them.

        :raises ImageExists: the name is taken
        :raises TakenOver: the draft has been removed meanwhile
        """
        self.set_id(name, image_id)
        try:
            self._rename_listed(draft, image_id, name)
        except errors.TakenOver:
            # Unless another process has finished this publish.
            if self.free_unlisted(name, image_id):
                raise
        except errors.ImageExists:
            self.free_unlisted(name, image_id)
            raise
        self.remove_id(draft, image_id)

    def finish_publishing(self, draft: str, name: str) -> None:
        """Finish a publish whose process died, if there was one.

        A publish that cannot be finished leaves the draft listed.
        """
        image_id = self.image_id(draft)
        if image_id is None:
            return
        has_name = self.image_id(name) == image_id
        if has_name and self.listed_id(draft) == image_id:
            with contextlib.suppress(errors.TakenOver, errors.ImageExists):
                self._rename_listed(draft, image_id, name)
        if self.listed_id(name) != image_id:
            return
        if not has_name:
            # Earlier releases changed the directory first.
            try:
                self.set_id(name, image_id)
            except errors.ImageExists:
                self._give_back(name, draft, image_id)
                return
        self.remove_id(draft, image_id)

    def take_away(self, draft: str) -> str | None:
        """Keep a draft from being published; return the name it has then.

        The directory gives it that name in one step: either its maker has
        published it before, or its maker's publish fails. Does nothing if
        this has been done already.

        :returns: None if the draft is not listed, or is published
        """
        undone = names.undone_draft(draft)
        draft = names.made_draft(draft)
        image_id = self.listed_id(draft)
        if image_id is not None:
            with contextlib.suppress(errors.TakenOver):
                self._rename_listed(draft, image_id, undone)
        image_id = self.listed_id(undone)
        if image_id is None:
            return None
        for name in (draft, names.final_name(draft)):
            self.remove_id(name, image_id)
        return undone

    def free_unlisted(self, name: str, image_id: str) -> bool:
        """Free a name that an image was to get, but is not listed by.

        :returns: False if the image is listed by this name
        """
        if self.listed_id(name) == image_id:
            return False
        self.remove_id(name, image_id)
        return True

    def set_id(self, name: str, image_id: str) -> None:
        """Have an image found by a name. Does nothing if it is already.

        cls_rbd: set_id.

        :raises ImageExists: another image has the name
        :raises NoSpace: the pool is full. Fails at once: a purge that
            finishes the work of a dead process must not wait for space
        """
        with self._access.reach("name", image=name, frees=True) as ioctx:
            try:
                with rados.WriteOpCtx() as op:
                    op.new(rados.LIBRADOS_CREATE_IDEMPOTENT)
                    op.execute("rbd", "set_id", layouts.encoded(image_id))
                    ioctx.operate_write_op(op, layouts.id_object(name))
            except rados.ObjectExists:
                if self.image_id(name) != image_id:
                    raise

    def remove_id(self, name: str, image_id: str) -> None:
        """Remove the rbd_id object of a name, if it has this id.

        librados: rados_write_op_cmpext in the same write.
        """
        with self._access.reach(
            "remove the name", image=name, frees=True
        ) as ioctx:
            try:
                with rados.WriteOpCtx() as op:
                    op.cmpext(layouts.encoded(image_id), 0)
                    op.remove()
                    ioctx.operate_write_op(op, layouts.id_object(name))
            except rados.ObjectNotFound:
                pass
            except rados.Error as error:
                if not _differs(error):
                    raise

    def remove_listed(self, name: str, image_id: str) -> None:
        """Remove an image from the directory. cls_rbd: dir_remove_image."""
        request = layouts.listed(name, image_id)
        method = ("rbd", "dir_remove_image")
        self._access.execute(
            "unlist", name, layouts.DIRECTORY, method, request, frees=True
        )

    def _rename_listed(self, draft: str, image_id: str, name: str) -> None:
        """cls_rbd: dir_rename_image, which refuses any other name or id."""
        request = layouts.renamed(draft, name, image_id)
        method = ("rbd", "dir_rename_image")
        try:
            self._access.execute(
                "name", name, layouts.DIRECTORY, method, request, frees=True
            )
        except (errors.ImageNotFound, errors.Conflict) as error:
            # ENOENT: the directory has no such draft. ESTALE: it has another
            # id for the draft.
            raise errors.TakenOver(
                "the draft is gone",
                operation="create",
                pool=str(self._access),
                image=name,
            ) from error

    def _give_back(self, name: str, draft: str, image_id: str) -> None:
        """Undo a publish whose name another image has got meanwhile.

        For librbd only the rbd_id object takes a name: ``rbd trash restore``
        gives a name that the directory has for a half-published image to
        another image, and does not list that (Trash::restore, 16.2).
        librados: rados_write_op_omap_set, because of two methods of cls_rbd in
        one write the second does not see what the first has changed.

        :raises Conflict: the directory has changed, or lists the other image
        """
        owner_id = self.existing_id(name, "give back the name of")
        entries = {
            **layouts.directory_entries(draft, image_id),
            **layouts.directory_entries(name, owner_id),
        }
        with (
            self._access.reach(
                "give back the name of", image=name, frees=True
            ) as ioctx,
            rados.WriteOpCtx() as op,
        ):
            expected = {
                layouts.id_by_name(name): layouts.encoded(image_id).decode(),
                layouts.name_by_id(owner_id): "",  # a missing entry
            }
            for key, value in expected.items():
                op.omap_cmp(key, value, rados.LIBRADOS_CMPXATTR_OP_EQ)
            ioctx.set_omap(op, tuple(entries), tuple(entries.values()))
            ioctx.operate_write_op(op, layouts.DIRECTORY)


def _differs(error: rados.Error) -> bool:
    """Return whether a write failed because its compare did."""
    return (error_map.ceph_errno(error) or 0) >= _FIRST_DIFFERENCE
