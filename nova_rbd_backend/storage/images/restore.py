# SPDX-License-Identifier: Apache-2.0

"""Flow: list the images in the trash, and restore disks from there."""

import contextlib
import dataclasses
import datetime
import enum
from collections.abc import Iterator

from nova_rbd_backend import errors
from nova_rbd_backend.ceph.cluster import once_more
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.ceph.trash import TrashedImage
from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.images.retention import Retention

# Restoring takes a moment. After this time the claim of a dead process ends.
_CLAIM_SECONDS = 600.0


class Fate(enum.StrEnum):
    """What becomes of a trashed image if nobody acts."""

    KEPT = "kept"  # until its retention is over
    DUE = "due"  # the next purge frees it
    BEING_FREED = "being freed"
    UNMANAGED = "unmanaged"  # moved there by other means: it stays


@dataclasses.dataclass(frozen=True)
class Deleted:
    """A trashed image, and the facts of its deletion."""

    image: TrashedImage
    size_bytes: int
    deleted_at: datetime.datetime | None  # None: by other means
    fate: Fate


def trashed(pool: Pool) -> Iterator[Deleted]:
    """Yield the images in the pool's trash, by the end of their retention."""
    entries = {each.image_id: each for each in journal.deletions(pool)}
    images, retention = pool.trash.entries(), Retention(pool)
    for image in sorted(images, key=lambda each: each.kept_until):
        # An image may be freed meanwhile.
        with contextlib.suppress(errors.ImageNotFound):
            size_bytes = pool.headers.size_bytes(image.image_id)
            entry = entries.get(image.image_id)
            at, fate = None, Fate.UNMANAGED
            if entry is not None:
                at = _time(entry.begun_at)
                fate = _fate(image, entry, retention)
            yield Deleted(image, size_bytes, at, fate)


def _fate(
    image: TrashedImage, entry: journal.Entry, retention: Retention
) -> Fate:
    if journal.is_claimed(entry):
        return Fate.BEING_FREED
    return Fate.KEPT if retention.reason(image) else Fate.DUE


def _time(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def find(pool: Pool, image: str) -> list[TrashedImage]:
    """Return the trashed images that have this name or id."""
    return [
        each
        for each in pool.trash.entries()
        if image in (each.name, each.image_id)
    ]


@once_more
def restore(pool: Pool, image: TrashedImage) -> None:
    """Give a trashed image its name again, so that no purge frees it.

    :raises ImageExists: the name is taken
    :raises BeingCreated: a disk of that name is being made
    :raises DiskBusy: its space is being freed
    :raises ImageNotFound: it is not in the trash any more
    """
    check(pool, image)
    entry = journal.deletion(pool, image.image_id)
    if entry is None:
        pool.trash.restore(image.image_id, image.name)
        return
    with journal.claimed(pool, entry, _CLAIM_SECONDS) as claim:
        if claim is None:
            raise _being_freed(pool, image)
        pool.trash.restore(image.image_id, image.name)
        claim.finish()


def check(pool: Pool, image: TrashedImage) -> None:
    """Raise what restore would raise, but restore nothing."""
    facts = _facts(pool, image)
    # If a restore was interrupted, the image itself may have the name.
    if pool.directory.image_id(image.name) not in (None, image.image_id):
        raise errors.ImageExists("the name is taken", **facts)
    attempts = journal.creations(pool, f"{image.name}.")
    if not all(journal.is_abandoned(pool, entry) for entry in attempts):
        raise errors.BeingCreated("a disk of this name is being made", **facts)
    entry = journal.deletion(pool, image.image_id)
    if entry is not None and journal.is_claimed(entry):
        raise _being_freed(pool, image)


def _being_freed(pool: Pool, image: TrashedImage) -> errors.DiskBusy:
    return errors.DiskBusy("its space is being freed", **_facts(pool, image))


def _facts(pool: Pool, image: TrashedImage) -> dict[str, str]:
    return {
        "operation": "restore from the trash",
        "pool": str(pool),
        "image": image.name,
    }
