# SPDX-License-Identifier: Apache-2.0

"""Flow: delete an instance's disks. Their names are free on return."""

import dataclasses
import time
from collections.abc import Callable

from nova_rbd_backend import errors, names
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
    """:ivar deleted: names that are free now
    :ivar undone: names of half-made images among them
    """

    deleted: tuple[str, ...]
    undone: tuple[str, ...]
    seconds: float


def _any_disk(disk_name: str) -> bool:
    return True


@once_more
def delete_disks(
    pool: Pool,
    instance_uuid: str,
    only: Callable[[str], bool] = _any_disk,
    retention_seconds: int = 0,
    busy_limit_seconds: float = BUSY_LIMIT_SECONDS,
) -> DeleteReport:
    """Free the names of an instance's disks, half made or whole. None: done.

    A purge frees their space later. Blocks.

    :param only: called with each image's name; returns whether to delete it
    :param retention_seconds: how long the trash must keep them
    :raises DiskBusy: a living client has a disk open, or does not release its
        lock, after busy_limit_seconds: a guest would write on until its disk
        is purged. The other disks of the instance are deleted by then
    """
    started = time.monotonic()
    prefix = names.DiskName.prefix(instance_uuid)
    undone = [
        entry.image
        for entry in journal.creations(pool, prefix)
        if only(entry.image) and settle(pool, entry)
    ]
    busy: list[errors.DiskBusy] = []
    gone: list[str] = []
    found = {
        name: image_id
        for name, image_id in pool.directory.ids(prefix).items()
        if only(names.final_name(name))
    }
    # All disks at once: each dead client takes its time.
    held = fencing.fence(pool, found)
    for name in found:
        try:
            discard_fenced(
                pool,
                name,
                retention_seconds,
                busy_limit_seconds,
                spare_living=name in held,
            )
        except errors.DiskBusy as error:
            busy.append(error)
        else:
            gone.append(name)
    if busy:
        raise busy[0]
    return DeleteReport(tuple(gone), tuple(undone), time.monotonic() - started)


@once_more
def delete_disk(pool: Pool, name: str, retention_seconds: int = 0) -> None:
    """Free the name of one disk, half made or whole. No such disk: done.

    :raises DiskBusy: see delete_disks
    """
    settle_attempts(pool, name)
    discard(pool, name, retention_seconds)
