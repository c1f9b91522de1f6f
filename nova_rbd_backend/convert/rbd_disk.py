# SPDX-License-Identifier: Apache-2.0

"""Flow: a disk that is a copy of a local disk, marked by a snap.

The snap is what was compared with the old disk. It tells a copy from any other
disk of that name, and whether the guest has written since.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping

from nova_rbd_backend import errors, names
from nova_rbd_backend.ceph.cluster import once_more
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage.disks import provision
from nova_rbd_backend.storage.disks.delete import delete_disk
from nova_rbd_backend.storage.images.discard import discard

#: One of discard.OWN_SNAPS: it is removed with the disk.
MARK = "nova-rbd-converted"


@dataclasses.dataclass(frozen=True)
class Copy:
    """A disk that has the name of a copy.

    :ivar marked: a conversion made it, and it was whole
    :ivar written: a guest has written to it since then
    """

    marked: bool
    written: bool


@once_more
def find(pool: Pool, name: str) -> Copy | None:
    """Return what a disk is; None: no such disk. Slow without fast-diff."""
    image_id = provision.whole_image_id(pool, name)
    if image_id is None:
        return None
    with pool.open(image_id=image_id) as disk:
        if MARK not in [snap.name for snap in disk.snaps()]:
            return Copy(False, True)
        return Copy(True, bool(disk.changes(MARK)))


def make(
    pool: Pool,
    name: str,
    size_bytes: int,
    fill: Callable[[str], None],
    metadata: Mapping[str, str],
) -> None:
    """Make a disk, and mark it. If killed, the next run undoes what exists.

    :param fill: called with a draft's name; writes and compares that image
    """

    def made(draft: str) -> None:
        fill(draft)
        with pool.open(draft, read_only=False) as disk:
            disk.create_snap(MARK)

    provision.filled_disk(pool, name, size_bytes, made, metadata)


@once_more
def unmark(pool: Pool, name: str) -> None:
    """Remove the mark. No such disk, or not marked: done."""
    with (
        contextlib.suppress(errors.ImageNotFound),
        pool.open(name, read_only=False) as disk,
    ):
        disk.remove_snap(MARK)


def delete(pool: Pool, name: str, retention_seconds: int) -> None:
    """Delete a disk of a conversion. No such disk: done."""
    delete_disk(pool, name, retention_seconds)


class Mirror:
    """The image that a running guest's disk is copied into by its QEMU.

    QEMU opens it by its final name, which stays in the domain. Then it gets a
    draft's name, so that a half-made disk is never found by its own. QEMU,
    which has it open, is not affected.
    """

    def __init__(self, pool: Pool, name: str, draft: str):
        self._pool = pool
        self._name = name
        self._draft = draft

    @classmethod
    def new(cls, pool: Pool, name: str) -> "Mirror":
        """Return a mirror with a new draft's name."""
        return cls(pool, name, names.new_draft(name))

    @property
    def draft(self) -> str:
        return self._draft

    def create(self, size_bytes: int, metadata: Mapping[str, str]) -> None:
        """Make the image, empty."""
        self._pool.create(self._draft, size_bytes)
        self._pool.headers.set_metadata(
            self._id(), metadata, self._pool.options.conf_metadata
        )

    def show(self) -> None:
        """Give it the disk's name. It has that name already: done."""
        if self._pool.directory.listed_id(self._draft) is None:
            self._pool.directory.finish_publishing(self._draft, self._name)
        else:
            self._pool.directory.publish(self._draft, self._id(), self._name)

    def hide(self) -> None:
        """Give it the draft's name again."""
        image_id = self._pool.directory.image_id(self._name)
        assert image_id is not None
        self._pool.directory.publish(self._name, image_id, self._draft)

    def mark(self) -> None:
        """Mark it as whole, while the guest is paused. Marked: done."""
        with self._pool.open(self._draft, read_only=False) as disk:
            disk.create_snap(MARK)

    def is_marked(self) -> bool:
        """Return whether it was whole once, under whichever name it has."""
        for name in (self._draft, self._name):
            found = find(self._pool, name)
            if found is not None:
                return found.marked
        return False

    def discard(self, keep_written: bool) -> None:
        """Delete it, under the name that it has. Deleted already: done.

        :param keep_written: keep an image that was written to since it was
            whole
        """
        for taken, other in (
            (self._draft, self._name),
            (self._name, self._draft),
        ):
            # A process may have been killed in the middle of show or hide.
            self._pool.directory.finish_publishing(taken, other)
        discard(self._pool, self._draft)
        found = find(self._pool, self._name)
        if found is None or (keep_written and found.marked and found.written):
            return
        discard(self._pool, self._name)

    def _id(self) -> str:
        image_id = self._pool.directory.image_id(self._draft)
        if image_id is None:
            raise errors.ImageNotFound(
                "it was removed meanwhile",
                operation="copy into",
                pool=str(self._pool),
                image=self._draft,
            )
        return image_id
