# SPDX-License-Identifier: Apache-2.0

"""One disk of one instance, in the pool where it is or will be made.

Each method is one piece of work off the event loop, with Nova's exceptions.
"""

import functools
from collections.abc import Callable
from typing import Any

from nova_rbd_backend.ceph.image import Image
from nova_rbd_backend.storage import fencing
from nova_rbd_backend.storage.disks import delete, provision
from nova_rbd_backend.virt import edge
from nova_rbd_backend.virt.pools import choice


class Disk:
    """A disk by its name; it need not exist.

    :ivar nova_name: such as ``disk.swap``; empty if Nova gave a path
    :ivar image: the RBD image's name
    """

    def __init__(self, instance: Any, nova_name: str, image: str) -> None:
        self.instance = instance
        self.nova_name = nova_name
        self.image = image

    @functools.cached_property
    def place(self) -> choice.Place:
        """The disk's pool, which is searched for when it is first needed."""
        return choice.of_disk(self.instance, self.nova_name, self.image)

    @property
    def pool(self) -> str:
        return self.place.pool.name

    def look_in_new_pools(self) -> bool:
        """Search pools that only other hosts knew; return whether found."""
        found = choice.found_anew(self.instance, self.image)
        if found is not None:
            self.place = found
        return found is not None

    def go_where_it_is_made(self) -> None:
        """Use the pool that the flavor asks for.

        :raises nova.exception.InvalidInput: this host does not know its class
        """
        self.place = choice.for_new(self.instance, self.nova_name)

    def exists(self) -> bool:
        """Return whether the disk exists and is whole."""
        pool = self.place.pool
        return edge.run(lambda: provision.is_whole(pool, self.image))

    def size_bytes(self) -> int:
        """Return the size of the disk as the guest sees it.

        :raises nova.exception.DiskNotFound: there is no such disk
        """
        pool = self.place.pool
        return edge.run(lambda: provision.guest_bytes(pool, self.image))

    def metadata(self) -> dict[str, str]:
        """Return the disk's metadata; empty if there is no such disk."""
        pool = self.place.pool

        def ask() -> dict[str, str]:
            image_id = pool.directory.image_id(self.image)
            return {} if image_id is None else pool.headers.metadata(image_id)

        return edge.run(ask)

    def grow(self, size_bytes: int) -> None:
        """Grow the disk. Does nothing if it is as big already."""
        if self.size_bytes() >= size_bytes:
            return
        pool = self.place.pool
        # It may wait for a client that has died.
        edge.run(
            lambda: provision.grow(pool, self.image, size_bytes), waits=True
        )

    def delete(self, place: choice.Place) -> None:
        """Delete the disk in a pool. Does nothing if it is not there."""
        pool = place.pool
        seconds = edge.settings().trash_retention_seconds
        edge.run(
            lambda: delete.delete_disk(pool, self.image, seconds), waits=True
        )

    def change(
        self, work: Callable[[Image], None], long: bool = False
    ) -> None:
        """Open the disk for writing, do the work and close it."""
        pool = self.place.pool.for_image_in_use()

        def whole() -> None:
            with fencing.fenced(pool, self.image) as image:
                work(image)

        # It may wait for a client that has died.
        edge.run(whole, long=long, waits=not long)
