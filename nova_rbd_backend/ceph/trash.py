# SPDX-License-Identifier: Apache-2.0

"""A pool's trash, through librbd. All calls block."""

import dataclasses
import datetime
from collections.abc import Mapping

import rbd

from nova_rbd_backend import errors
from nova_rbd_backend.ceph import encoding
from nova_rbd_backend.ceph.access import Access
from nova_rbd_backend.ceph.directory import Directory


@dataclasses.dataclass(frozen=True)
class TrashedImage:
    """An image in the trash; kept at least until kept_until."""

    image_id: str
    name: str
    kept_until: datetime.datetime


class Trash:
    """The trashed images of a pool, by their ids."""

    def __init__(self, access: Access, directory: Directory):
        self._access = access
        self._directory = directory

    def move(self, name: str, retention_seconds: int = 0) -> None:
        """Free the name; the image stays in the trash under its id.

        Works while it has snaps, clones or watchers. librbd:
        rbd_trash_move.

        :raises ImageNotFound: there is no such image
        :raises DiskBusy: the owner of its lock does not release it
        """
        with self._access.reach(
            "move to the trash", image=name, frees=True
        ) as ioctx:
            rbd.RBD().trash_move(ioctx, name, retention_seconds)

    def remove(self, image_id: str, force: bool = False) -> None:
        """Free the space of a trashed image. librbd: rbd_trash_remove.

        :param force: although its retention is not over
        :raises ImageNotFound: it is not in the trash
        :raises NotPermitted: its retention is not over
        :raises HasSnaps: it has snaps or clones
        :raises DiskBusy: a client has it open
        :raises MoveUnfinished: its move to the trash has not come to its end
        """
        with self._access.reach(
            "remove from the trash", image=image_id, frees=True
        ) as ioctx:
            rbd.RBD().trash_remove(ioctx, image_id, force)

    def restore(self, image_id: str, name: str) -> None:
        """Give a trashed image a name again. librbd: rbd_trash_restore.

        :raises ImageNotFound: it is not in the trash
        :raises ImageExists: the name is taken
        """
        with self._access.reach("restore from the trash", image=name) as ioctx:
            rbd.RBD().trash_restore(ioctx, image_id, name)

    def entries(self) -> list[TrashedImage]:
        """Return all that the trash holds. librbd: rbd_trash_list."""
        with self._access.reach("list the trash") as ioctx:
            return [_trashed(entry) for entry in rbd.RBD().trash_list(ioctx)]

    def get(self, image_id: str) -> TrashedImage | None:
        """Return one image; None: not in the trash. librbd: rbd_trash_get."""
        try:
            with self._access.reach(
                "look into the trash", image=image_id
            ) as ioctx:
                return _trashed(rbd.RBD().trash_get(ioctx, image_id))
        except errors.ImageNotFound:
            return None

    def finish_move(self, image_id: str, name: str) -> None:
        """Finish a move whose process died before the last step.

        cls_rbd: dir_remove_image, trash_state_set, as librbd's Trash::move.
        """
        if self._directory.listed_id(name) == image_id:
            self._directory.remove_listed(name, image_id)
        if self._directory.image_id(name) == image_id:
            self._directory.remove_id(name)
        with self._access.reach(
            "finish the move of", image=name, frees=True
        ) as ioctx:
            request = encoding.end_of_move(image_id)
            ioctx.execute("rbd_trash", "rbd", "trash_state_set", request)


def _trashed(entry: Mapping[str, object]) -> TrashedImage:
    until = entry["deferment_end_time"]
    assert isinstance(until, datetime.datetime)
    # librbd.pyx makes naive datetimes of UTC (utcfromtimestamp, 16.2)
    until = until.replace(tzinfo=datetime.UTC)
    return TrashedImage(str(entry["id"]), str(entry["name"]), until)
