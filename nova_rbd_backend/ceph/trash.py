# SPDX-License-Identifier: Apache-2.0

"""A pool's trash, through librbd. All calls block."""

import contextlib
import dataclasses
import datetime
from collections.abc import Mapping
from typing import Any

import rbd

from nova_rbd_backend import errors
from nova_rbd_backend.ceph import layouts
from nova_rbd_backend.ceph.access import Access
from nova_rbd_backend.ceph.directory import Directory
from nova_rbd_backend.ceph.lock_wait import LockWaits
from nova_rbd_backend.ceph.objects import Objects


@dataclasses.dataclass(frozen=True)
class TrashedImage:
    image_id: str
    name: str
    deleted_at: datetime.datetime  # by the clock of the host that did it
    kept_until: datetime.datetime  # when its retention ends

    @property
    def is_retained(self) -> bool:
        """Whether it has to be kept for some time after its deletion."""
        return self.kept_until > self.deleted_at


class Trash:
    """The trashed images of a pool, by their ids."""

    def __init__(
        self,
        access: Access,
        objects: Objects,
        directory: Directory,
        lock_waits: LockWaits,
    ):
        self._access = access
        self._objects = objects
        self._directory = directory
        self._lock_waits = lock_waits

    def move(
        self,
        name: str,
        retention_seconds: int = 0,
        image_id: str | None = None,
    ) -> None:
        """Free the name of an image, which stays in the trash under its id.

        The image may have snaps, clones and watchers. librbd: rbd_trash_move,
        which takes names only. It looks the name up once, and may wait for the
        lock of that image. If another image gets the name meanwhile, it is not
        moved, but loses its rbd_id object, so that nobody can open it
        (Trash::move, MoveRequest.cc, 16.2): see Pool.restore_id.

        :param image_id: of the image that is meant, as another one may have
            the name by now; None: whatever has the name
        :raises ImageNotFound: there is no such image, or another one has the
            name
        :raises DiskBusy: the owner of its lock does not release it
        :raises Conflict: another process has moved it and begun to free it, or
            another image has got the name meanwhile
        """
        operation = "move to the trash"
        connection = self._access.cluster.connection()
        with (
            self._lock_waits.limited(operation, connection, name),
            self._access.reach(
                operation, image=name, connection=connection, frees=True
            ) as ioctx,
        ):
            if image_id not in (None, self._directory.listed_id(name)):
                raise errors.ImageNotFound(
                    f"its name is free, or of another image than {image_id}",
                    operation=operation,
                    pool=str(self._access),
                    image=name,
                )
            rbd.RBD().trash_move(ioctx, name, retention_seconds)

    def remove(self, image_id: str, force: bool = False) -> None:
        """Free the space of a trashed image.

        The last clone of a hidden snap takes that snap along, for which librbd
        opens the parent (DetachChildRequest.cc, 16.2).
        librbd: rbd_trash_remove_with_progress.

        :param force: even if its retention is not over
        :raises ImageNotFound: it is not in the trash
        :raises NotPermitted: its retention is not over
        :raises HasSnaps: it has snaps or clones
        :raises DiskBusy: a client has it open, or the owner of its parent's
            lock does not act
        :raises MoveUnfinished: its move to the trash has not been completed
        """
        operation = "remove from the trash"
        connection = self._access.cluster.connection()
        with (
            self._lock_waits.limited(
                operation, connection, image_id=image_id, with_parent=True
            ) as wait,
            self._access.reach(
                operation, image=image_id, connection=connection, frees=True
            ) as ioctx,
        ):

            def note(_done: int, _total: int) -> int:
                wait.restart()
                return 0

            rbd.RBD().trash_remove(ioctx, image_id, force, note)

    def restore(self, image_id: str, name: str) -> None:
        """Give a trashed image a name again. librbd: rbd_trash_restore.

        :raises ImageNotFound: it is not in the trash
        :raises ImageExists: the name is taken
        """
        with self._access.reach("restore from the trash", image=name) as ioctx:
            rbd.RBD().trash_restore(ioctx, image_id, name)

    def entries(self) -> list[TrashedImage]:
        """Return the images in the trash. librbd: rbd_trash_list."""
        with self._access.reach("list the trash") as ioctx:
            return [_trashed(entry) for entry in rbd.RBD().trash_list(ioctx)]

    def has(self, image_id: str) -> bool:
        """Return whether an image is in the trash.

        Unlike rbd_trash_get, prints nothing if the pool has no trash. Its keys
        are those of the directory (cls_rbd.cc, 16.2).
        """
        key = layouts.name_by_id(image_id)
        entry = self._objects.omap_value(layouts.TRASH, key)
        return entry is not None

    def get(self, image_id: str) -> TrashedImage | None:
        """Return one image; None: not in the trash. librbd: rbd_trash_get."""
        with (
            contextlib.suppress(errors.ImageNotFound),
            self._access.reach("look into the trash", image=image_id) as ioctx,
        ):
            return _trashed(rbd.RBD().trash_get(ioctx, image_id))
        return None

    def finish_move(self, image_id: str, name: str) -> None:
        """Finish a move to the trash whose process died before its last step.

        Takes the steps of librbd's Trash::move.
        """
        if self._directory.listed_id(name) == image_id:
            self._directory.remove_listed(name, image_id)
        self._directory.remove_id(name, image_id)
        self._end_move(image_id, name)

    def restore_renamed(self, image_id: str) -> bool:
        """Take an image that has a name out of the trash; return if it had.

        Such an image was renamed while it was moved to the trash; an earlier
        release could publish a draft that another host undid. An image that
        the directory lists by the name that it has in the trash is left
        alone, because its move is under way.
        """
        name = self._directory.listed_name(image_id)
        trashed = None if name is None else self.get(image_id)
        if name is None or trashed is None or trashed.name == name:
            return False
        with contextlib.suppress(errors.Conflict):  # its move has ended
            self._end_move(image_id, trashed.name)
        self.restore(image_id, name)
        return True

    def _end_move(self, image_id: str, name: str) -> None:
        """cls_rbd: trash_state_set."""
        method = ("rbd", "trash_state_set")
        request = layouts.end_of_move(image_id)
        self._access.execute(
            "finish the move of",
            name,
            layouts.TRASH,
            method,
            request,
            frees=True,
        )


def _trashed(entry: Mapping[str, Any]) -> TrashedImage:
    # librbd.pyx returns UTC as a naive datetime (utcfromtimestamp, 16.2).
    at, until = (
        entry[key].replace(tzinfo=datetime.UTC)
        for key in ("deletion_time", "deferment_end_time")
    )
    return TrashedImage(entry["id"], entry["name"], at, until)
