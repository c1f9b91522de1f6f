# SPDX-License-Identifier: Apache-2.0

"""Flow: a disk that is a copy of a local disk, marked by a snap.

The snap has the data that was compared with the old disk. It shows that a disk
of that name is a copy, and whether the guest has written to it since.

The rest of ``convert`` makes and deletes disks only through this module.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping

from nova_rbd_backend import errors, names
from nova_rbd_backend.ceph.cluster import once_more
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage import fencing
from nova_rbd_backend.storage.disks import provision
from nova_rbd_backend.storage.disks.delete import delete_disk
from nova_rbd_backend.storage.images.discard import discard

#: One of discard.OWN_SNAPS: it is removed with the disk.
MARK = "nova-rbd-converted"


@dataclasses.dataclass(frozen=True)
class Copy:
    """A disk that has the name of a copy.

    :ivar image_id: of this disk; another one may have the name later
    :ivar marked: a conversion made the disk, and it was whole
    :ivar written: a guest has written to the disk since then
    """

    image_id: str
    marked: bool
    written: bool


@once_more
def find(pool: Pool, name: str) -> Copy | None:
    """Return what a disk is; None: it does not exist.

    Slow without fast-diff.
    """
    image_id = provision.whole_image_id(pool, name)
    if image_id is None:
        return None
    with pool.open(image_id=image_id) as disk:
        if MARK not in [snap.name for snap in disk.snaps()]:
            return Copy(image_id, marked=False, written=True)
        written = bool(disk.changes(MARK))
        return Copy(image_id, marked=True, written=written)


def make(
    pool: Pool,
    name: str,
    size_bytes: int,
    fill: Callable[[str], None],
    metadata: Mapping[str, str],
) -> None:
    """Make a disk, and mark it.

    If the process is killed, the next run undoes what it has left.

    :param fill: called with a draft's name; writes and compares that image
    """

    def made(draft: str) -> None:
        fill(draft)
        with pool.open(draft, read_only=False) as disk:
            disk.create_snap(MARK)

    provision.filled_disk(pool, name, size_bytes, made, metadata)


@once_more
def unmark(pool: Pool, name: str) -> None:
    """Remove the mark, if there is such a disk and it is marked."""
    with (
        contextlib.suppress(errors.ImageNotFound),
        fencing.fenced(pool, name) as disk,
    ):
        disk.remove_snap(MARK)


def delete(pool: Pool, name: str, retention_seconds: int) -> None:
    """Delete a disk of a conversion, if it exists."""
    delete_disk(pool, name, retention_seconds)


class Mirror:
    """The image into which QEMU copies the disk of a running guest.

    QEMU opens the image by the disk's name, which stays in the domain. Then
    the image gets a draft's name, so that nobody takes it for a whole disk.
    QEMU has the image open, and is not affected.
    """

    def __init__(self, pool: Pool, name: str, draft: str | None = None):
        self._pool = pool
        self._name = name
        self.draft = draft or names.new_draft(name)

    def create(self, size_bytes: int, metadata: Mapping[str, str]) -> None:
        """Make an empty image."""
        self._pool.create(self.draft, size_bytes)
        self._pool.set_metadata(
            self._id(), metadata, self._pool.options.conf_metadata
        )

    def show(self) -> None:
        """Give the image the disk's name, if it does not have it yet."""
        if self._pool.directory.listed_id(self.draft) is None:
            self._pool.directory.finish_publishing(self.draft, self._name)
        else:
            self._pool.publish(self.draft, self._id(), self._name)

    def hide(self) -> None:
        """Give the image the draft's name again."""
        image_id = self._pool.directory.image_id(self._name)
        assert image_id is not None
        self._pool.publish(self._name, image_id, self.draft)

    def mark(self) -> None:
        """Mark the image as whole, if it is not marked yet.

        The guest has to be paused.
        """
        with fencing.fenced(self._pool, self.draft) as disk:
            disk.create_snap(MARK)

    def is_marked(self) -> bool:
        """Return whether the image was whole once, whatever its name is."""
        found = find(self._pool, self.draft) or find(self._pool, self._name)
        return found is not None and found.marked

    def discard(self, keep_written: bool) -> None:
        """Delete the image under the name that it has, if it exists.

        :param keep_written: keep an image that was written to since it was
            whole
        """
        # A process may have been killed in the middle of show or hide.
        self._pool.directory.finish_publishing(self.draft, self._name)
        self._pool.directory.finish_publishing(self._name, self.draft)
        # Or after it had begun to delete the image, which has another name
        # since then, and no entry in the journal that leads to it.
        undone = self._pool.directory.take_away(self.draft)
        discard(self._pool, undone or self.draft)
        found = find(self._pool, self._name)
        if found and not (keep_written and found.marked and found.written):
            discard(self._pool, self._name, image_id=found.image_id)

    def _id(self) -> str:
        image_id = self._pool.directory.image_id(self.draft)
        if image_id is None:
            raise errors.ImageNotFound(
                "it was removed meanwhile",
                operation="copy into",
                pool=str(self._pool),
                image=self.draft,
            )
        return image_id
