# SPDX-License-Identifier: Apache-2.0

"""The door to one pool: its images and its trash, through librbd."""

import contextlib
import dataclasses
import datetime
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import rbd

from nova_rbd_backend import errors
from nova_rbd_backend.image_options import ImageOptions, Striping
from nova_rbd_backend.storage import striping
from nova_rbd_backend.storage.disk import Disk
from nova_rbd_backend.storage.image_headers import ImageHeaders
from nova_rbd_backend.storage.image_holders import ImageHolders
from nova_rbd_backend.storage.image_ids import DIRECTORY
from nova_rbd_backend.storage.pool_objects import encoded

# cls::rbd::TrashImageState: NORMAL is 0, MOVING 1 (cls_rbd_types.h, 16.2)
_FROM_MOVING_TO_NORMAL = struct.pack("<BB", 0, 1)


@dataclasses.dataclass(frozen=True)
class TrashedImage:
    """An image in the trash; kept at least until kept_until."""

    image_id: str
    name: str
    kept_until: datetime.datetime


class Pool(ImageHeaders, ImageHolders):
    """A pool (and namespace) of a cluster. All calls block."""

    def create(self, name: str, size_bytes: int) -> None:
        """Make an empty image, with the pool's options. librbd: rbd_create4.

        :raises ImageExists: the name is taken
        """
        with self._reach("create", image=name) as ioctx:
            rbd.RBD().create(
                ioctx,
                name,
                size_bytes,
                old_format=False,
                **_arguments(self.options, self.options.striping),
            )

    def clone(
        self,
        parent_pool: "Pool",
        parent_image: str,
        parent_snap: str,
        name: str,
    ) -> None:
        """Make a copy-on-write clone of a snap. librbd: rbd_clone4.

        With the pool's options, but never striped finer than its parent. Its
        metadata is its parent's.

        :raises ImageExists: the name is taken
        :raises ImageNotFound: no such parent
        :raises SnapNotFound: the parent has no such snap
        """
        connection = self.cluster.connection()
        arguments = _arguments(
            self.options, striping.of_clone(self, parent_pool, parent_image)
        )
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
                    **arguments,
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

    def parent_of(self, image_id: str) -> tuple["Pool", str] | None:
        """Pool and id of an image's parent, without opening it.

        :returns: None: it is no clone
        :raises ImageNotFound: there is no such image
        """
        found = self.parent_id(image_id)
        if found is None:
            return None
        pool_id, namespace, parent = found
        name = self.cluster.pool_name(pool_id)
        return self.cluster.pool(name, namespace), parent

    @contextlib.contextmanager
    def open(
        self,
        name: str | None = None,
        snap: str | None = None,
        read_only: bool = True,
        image_id: str | None = None,
        frees: bool = False,
    ) -> Iterator[Disk]:
        """Open an image by name, or by id (also in the trash).

        librbd: rbd_open, rbd_open_read_only, rbd_open_by_id.

        :param frees: in a full pool too, to remove snaps; other writes fail
        :raises ImageNotFound: there is no such image
        :raises SnapNotFound: the image has no such snap
        """
        shown = name or image_id
        connection = self.cluster.connection()
        with self._reach(
            "open", image=shown, connection=connection, frees=frees
        ) as ioctx:
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
            self._reach("remove", image=name, frees=True) as ioctx,
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
        listed = self.listed_name(image_id) is not None
        return listed or self.trash_get(image_id) is not None

    # the trash

    def trash_move(self, name: str, retention_seconds: int = 0) -> None:
        """Free the name; the image stays in the trash under its id.

        Works while it has snaps, clones or watchers. librbd:
        rbd_trash_move.

        :raises ImageNotFound: there is no such image
        :raises DiskBusy: the owner of its lock does not give it up
        """
        with self._reach("move to the trash", image=name, frees=True) as ioctx:
            rbd.RBD().trash_move(ioctx, name, retention_seconds)

    def trash_remove(self, image_id: str, force: bool = False) -> None:
        """Free the space of a trashed image. librbd: rbd_trash_remove.

        :param force: although its retention is not over
        :raises ImageNotFound: it is not in the trash
        :raises NotPermitted: its retention is not over
        :raises HasSnaps: it has snaps or clones
        :raises DiskBusy: a client has it open
        :raises MoveUnfinished: a trash_move has not come to its end
        """
        with self._reach(
            "remove from the trash", image=image_id, frees=True
        ) as ioctx:
            rbd.RBD().trash_remove(ioctx, image_id, force)

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
        with self._reach(
            "finish the move of", image=name, frees=True
        ) as ioctx:
            if self.listed_id(name) == image_id:
                request = encoded(name) + encoded(image_id)
                ioctx.execute(DIRECTORY, "rbd", "dir_remove_image", request)
            if self.image_id(name) == image_id:
                self._remove_id(name)
            request = encoded(image_id) + _FROM_MOVING_TO_NORMAL
            ioctx.execute("rbd_trash", "rbd", "trash_state_set", request)

    def trash_get(self, image_id: str) -> TrashedImage | None:
        """One trashed image; None: not there. librbd: rbd_trash_get."""
        try:
            with self._reach("look into the trash", image=image_id) as ioctx:
                return _trashed(rbd.RBD().trash_get(ioctx, image_id))
        except errors.ImageNotFound:
            return None


def _arguments(options: ImageOptions, how: Striping | None) -> dict[str, Any]:
    """Arguments of rbd_create4 and rbd_clone4; None is Ceph's choice."""
    return {
        "data_pool": options.data_pool,
        "features": options.feature_bits,
        "order": how.order if how else None,
        "stripe_unit": how.stripe_unit_bytes if how else None,
        "stripe_count": how.stripe_count if how else None,
    }


def _trashed(entry: Mapping[str, object]) -> TrashedImage:
    until = entry["deferment_end_time"]
    assert isinstance(until, datetime.datetime)
    # librbd.pyx makes naive datetimes of UTC (utcfromtimestamp, 16.2)
    until = until.replace(tzinfo=datetime.UTC)
    return TrashedImage(str(entry["id"]), str(entry["name"]), until)
