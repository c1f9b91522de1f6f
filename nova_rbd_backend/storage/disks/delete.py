# SPDX-License-Identifier: Apache-2.0

"""Flow: delete an instance's disks. Their names are free on return."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping

from nova_rbd_backend import errors, metadata, names
from nova_rbd_backend.ceph.cluster import once_more
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage import fencing, journal
from nova_rbd_backend.storage.images.discard import (
    BUSY_LIMIT_SECONDS,
    discard,
    discard_fenced,
)
from nova_rbd_backend.storage.images.draft import settle, settle_attempts


@dataclasses.dataclass(frozen=True)
class DeleteReport:
    deleted: tuple[str, ...]  # names that are free now
    undone: tuple[str, ...]  # disks that an earlier attempt left half made
    seconds: float


@dataclasses.dataclass(frozen=True)
class ByMove:
    """Which of an instance's disks a move to another cell has made.

    :ivar move: the UUID of the migration
    :ivar made: those disks; False: all others
    """

    move: str
    made: bool

    def chosen(self, pool: Pool, instance_uuid: str) -> frozenset[str]:
        """Return the names of these disks in a pool."""
        prefix = names.DiskName.prefix(instance_uuid)
        return frozenset(
            name
            for name, image_id in pool.directory.ids(prefix).items()
            if self._has(pool.headers.metadata(image_id))
        )

    def _has(self, facts: Mapping[str, str]) -> bool:
        return (facts.get(metadata.MOVE) == self.move) == self.made


@once_more
def delete_disks(
    pool: Pool,
    instance_uuid: str,
    only: Callable[[str], bool] = lambda _disk: True,
    retention_seconds: int = 0,
    busy_limit_seconds: float = BUSY_LIMIT_SECONDS,
    by_move: ByMove | None = None,
) -> DeleteReport:
    """Free the names of an instance's disks, whole or half made.

    Does nothing if the instance has no disks. A purge frees their space later.
    Blocks.

    :param only: called with each disk's name; returns whether to delete it
    :param retention_seconds: how long the trash must keep the disks
    :param by_move: of these, delete only the disks chosen by it
    :raises DiskBusy: after busy_limit_seconds a living client still has a disk
        open, or does not release its lock; a guest would write on until its
        disk is purged
    :raises StorageError: a disk cannot be deleted. Unless Ceph does not
        answer, the other disks of the instance are deleted by then
    """
    started = time.monotonic()
    prefix = names.DiskName.prefix(instance_uuid)
    failed: list[errors.StorageError] = []
    undone: list[str] = []
    for entry in journal.creations(pool, prefix):
        if only(entry.image):
            with _collected(failed):
                if settle(pool, entry):
                    undone.append(entry.image)
    chosen = None if by_move is None else by_move.chosen(pool, instance_uuid)
    deleted: list[str] = []
    found = {
        name: image_id
        for name, image_id in pool.directory.ids(prefix).items()
        if only(names.final_name(name)) and (chosen is None or name in chosen)
    }
    # All disks at once, because each dead client takes its time.
    held = fencing.fence(pool, found)
    for name, image_id in found.items():
        with _collected(failed):
            discard_fenced(
                pool,
                name,
                image_id,
                retention_seconds,
                busy_limit_seconds,
                spare_living=name in held,
            )
            deleted.append(name)
    if failed:
        raise failed[0]
    seconds = time.monotonic() - started
    return DeleteReport(tuple(deleted), tuple(undone), seconds)


@contextlib.contextmanager
def _collected(failed: list[errors.StorageError]) -> Iterator[None]:
    """Keep the error of one disk for later, so that the others go on."""
    try:
        yield
    except errors.UNREACHED:
        raise
    except errors.StorageError as error:
        failed.append(error)


@once_more
def delete_disk(pool: Pool, name: str, retention_seconds: int = 0) -> None:
    """Free the name of one disk, whole or half made, if it exists.

    :raises DiskBusy: see delete_disks
    """
    settle_attempts(pool, name)
    discard(pool, name, retention_seconds)
