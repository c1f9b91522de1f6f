# SPDX-License-Identifier: Apache-2.0

"""Flow: a disk whose bytes come from elsewhere, marked by a snap.

The snap is what was compared with the old disk. It tells such a disk from
any other of that name, and whether the guest has written since.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping

from nova_rbd_backend import errors, names
from nova_rbd_backend.storage import provision, trash
from nova_rbd_backend.storage.cluster import once_more
from nova_rbd_backend.storage.pool import Pool

#: One of trash.OWN_SNAPS: it goes with the disk.
MARK = "nova-rbd-converted"


@dataclasses.dataclass(frozen=True)
class Found:
    """A disk that has the name.

    :ivar marked: it is of a conversion, and was whole
    :ivar written: since then
    """

    marked: bool
    written: bool


@once_more
def look(pool: Pool, name: str) -> Found | None:
    """Look at a disk; None: there is none. Without fast-diff it is long."""
    image_id = provision.whole_image_id(pool, name)
    if image_id is None:
        return None
    with pool.open(image_id=image_id) as disk:
        if MARK not in [snap.name for snap in disk.snaps()]:
            return Found(False, True)
        return Found(True, bool(disk.changes(MARK)))


def make(
    pool: Pool,
    name: str,
    size_bytes: int,
    fill: Callable[[str], None],
    metadata: Mapping[str, str],
) -> None:
    """Make a disk, and mark it; killed, the next run undoes what is there.

    :param fill: writes and compares the image whose name it is given; the
        disk has its own name only afterwards
    """

    def made(draft: str) -> None:
        fill(draft)
        with pool.open(draft, read_only=False) as disk:
            disk.create_snap(MARK)

    provision.filled_disk(pool, name, size_bytes, made, metadata)


@once_more
def unmark(pool: Pool, name: str) -> None:
    """Remove the mark: it is a disk as others are. No disk, no mark: done."""
    with (
        contextlib.suppress(errors.ImageNotFound),
        pool.open(name, read_only=False) as disk,
    ):
        disk.remove_snap(MARK)


def delete(pool: Pool, name: str, retention_seconds: int) -> None:
    """Delete a disk of a conversion; gone: done."""
    trash.delete_disk(pool, name, retention_seconds)


class Mirror:
    """The image that a running guest's disk is copied into by its QEMU.

    QEMU opens it by its final name, which stays in the domain; then it gets
    a draft's, so that no half of a disk is ever found by its name. The image
    in QEMU does not care.
    """

    def __init__(self, pool: Pool, name: str, draft: str):
        self._pool = pool
        self._name = name
        self._draft = draft

    @classmethod
    def new(cls, pool: Pool, name: str) -> "Mirror":
        """Of a name that no other will have."""
        return cls(pool, name, names.new_draft(name))

    @property
    def draft(self) -> str:
        return self._draft

    def create(self, size_bytes: int, metadata: Mapping[str, str]) -> None:
        """Make it, empty."""
        self._pool.create(self._draft, size_bytes)
        self._pool.set_metadata(
            self._id(), metadata, self._pool.options.conf_metadata
        )

    def show(self) -> None:
        """Give it the disk's name; it has it: done."""
        if self._pool.listed_id(self._draft) is None:
            self._pool.finish_publishing(self._draft, self._name)
        else:
            self._pool.publish(self._draft, self._id(), self._name)

    def hide(self) -> None:
        """Give it the draft's name again."""
        image_id = self._pool.image_id(self._name)
        assert image_id is not None
        self._pool.publish(self._name, image_id, self._draft)

    def mark(self) -> None:
        """Mark it as whole; the guest has to stand still. Marked: done."""
        with self._pool.open(self._draft, read_only=False) as disk:
            disk.create_snap(MARK)

    def is_marked(self) -> bool:
        """Whether it was whole once, under whichever name it has."""
        for name in (self._draft, self._name):
            found = look(self._pool, name)
            if found is not None:
                return found.marked
        return False

    def discard(self, keep_written: bool) -> None:
        """Delete it under the name that it has; gone: done.

        :param keep_written: one that was written to since it was whole stays
        """
        for taken, other in (
            (self._draft, self._name),
            (self._name, self._draft),
        ):
            # Killed in the middle of show or hide.
            self._pool.finish_publishing(taken, other)
        trash.discard(self._pool, self._draft)
        found = look(self._pool, self._name)
        if found is None or (keep_written and found.marked and found.written):
            return
        trash.discard(self._pool, self._name)

    def _id(self) -> str:
        image_id = self._pool.image_id(self._draft)
        if image_id is None:
            raise errors.ImageNotFound(
                "it was removed meanwhile",
                operation="copy into",
                pool=str(self._pool),
                image=self._draft,
            )
        return image_id
