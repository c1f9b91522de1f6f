# SPDX-License-Identifier: Apache-2.0

"""One disk of one instance, where it is or where it is to be made.

Each method is one piece of work off the event loop, with Nova's exceptions.
"""

import functools
from collections.abc import Callable
from typing import Any

from nova_rbd_backend import errors
from nova_rbd_backend.ceph.image import Image
from nova_rbd_backend.storage.disks import delete, provision, rollback
from nova_rbd_backend.virt import edge
from nova_rbd_backend.virt.pools import choice


class Disk:
    """A disk by its name; it need not exist.

    :ivar nova_name: ``disk``, ``disk.swap``; None: made from a path
    :ivar image: the RBD image's name
    """

    def __init__(
        self, instance: Any, nova_name: str | None, image: str
    ) -> None:
        self.instance = instance
        self.nova_name = nova_name
        self.image = image

    @functools.cached_property
    def place(self) -> choice.Place:
        """The disk's pool; looked for when it is first needed."""
        return choice.of_disk(self.instance, str(self.nova_name), self.image)

    @property
    def pool(self) -> str:
        """The name of the disk's pool."""
        return self.place.pool.name

    def look_in_new_pools(self) -> bool:
        """Look in pools that only other hosts knew; return whether found."""
        found = choice.found_anew(self.instance, self.image)
        if found is not None:
            self.place = found
        return found is not None

    def require_new(self) -> None:
        """Refuse to make a disk that ought to exist elsewhere.

        :raises nova.exception.DiskNotFound: it ought to exist
        """
        choice.require_new(self.instance, str(self.nova_name), self.image)

    def go_where_it_is_made(self) -> None:
        """Take the pool that the flavor asks for.

        :raises nova.exception.InvalidInput: of a class that is unknown here
        """
        self.place = choice.for_new(self.instance, str(self.nova_name))

    # asking and changing it

    def exists(self) -> bool:
        """Return whether the disk exists, whole."""
        pool = self.place.pool
        return edge.run(lambda: provision.is_whole(pool, self.image))

    def size_bytes(self) -> int:
        """Return the size of the virtual disk.

        :raises nova.exception.DiskNotFound: there is no such disk
        """
        pool = self.place.pool

        def ask() -> int:
            image_id = pool.directory.image_id(self.image)
            if image_id is None:
                raise errors.ImageNotFound(
                    operation="get the size", pool=str(pool), image=self.image
                )
            return pool.headers.size_bytes(image_id)

        return edge.run(ask)

    def grow(self, size_bytes: int) -> None:
        """Grow the disk. As big already: done."""
        pool = self.place.pool
        edge.run(lambda: provision.grow(pool, self.image, size_bytes))

    def delete(self) -> None:
        """Delete the disk. No such disk: done."""
        pool = self.place.pool
        seconds = edge.settings().trash_retention_seconds
        edge.run(
            lambda: delete.delete_disk(pool, self.image, seconds), waits=True
        )

    def flatten(self) -> None:
        """Copy what the disk shares with its parent. No parent: done."""
        self._opened(lambda image: image.flatten(), long=True)

    def replace_snap(self, snap: str) -> None:
        """Keep the disk's content as it is now under this name.

        An older snap of that name is of an earlier attempt: rolling back to it
        would lose what the guest has written since.
        """

        def replace(image: Image) -> None:
            image.remove_snap(snap)
            image.create_snap(snap)

        self._opened(replace)

    def remove_snap(self, snap: str) -> None:
        """Remove a snap, protected or not. No such snap: done."""
        self._opened(lambda image: image.remove_snap(snap))

    def roll_back(self, snap: str) -> None:
        """Put the disk's content back to the snap's."""
        pool = self.place.pool
        edge.run(lambda: rollback.roll_back(pool, self.image, snap), long=True)

    def _opened(
        self, work: Callable[[Image], None], long: bool = False
    ) -> None:
        """Open for writing, work and close, in one piece of work."""
        pool = self.place.pool

        def whole() -> None:
            with pool.open(self.image, read_only=False) as image:
                work(image)

        edge.run(whole, long=long)
