# SPDX-License-Identifier: Apache-2.0

"""Flow: what is in the trash, and how a disk is had back from there."""

import contextlib
import dataclasses
import datetime
import enum
from collections.abc import Iterator

from nova_rbd_backend import errors
from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.cluster import once_more
from nova_rbd_backend.storage.pool import Pool, TrashedImage

# Restoring takes a moment; a claim of a dead process ends after it.
_CLAIM_SECONDS = 600.0


class State(enum.StrEnum):
    """What becomes of a trashed image by itself."""

    KEPT = "kept"  # until its retention is over
    DUE = "due"  # the next purge frees it
    BEING_FREED = "being freed"
    UNMANAGED = "unmanaged"  # moved there by other means: nothing


@dataclasses.dataclass(frozen=True)
class Trashed:
    """:ivar deleted_at: None: not known, moved there by other means"""

    image: TrashedImage
    size_bytes: int
    deleted_at: datetime.datetime | None
    state: State


def trashed(pool: Pool) -> Iterator[Trashed]:
    """All that lies in the pool's trash, the oldest last."""
    entries = {each.image_id: each for each in journal.deletions(pool)}
    images = pool.trash_list()
    for image in sorted(images, key=lambda each: each.kept_until):
        # It may be freed while we look.
        with contextlib.suppress(errors.ImageNotFound):
            yield _trashed(pool, image, entries.get(image.image_id))


def _trashed(
    pool: Pool, image: TrashedImage, entry: journal.Entry | None
) -> Trashed:
    deleted_at = None
    if entry is None:
        state = State.UNMANAGED
    else:
        deleted_at = datetime.datetime.fromtimestamp(
            entry.begun_at, datetime.UTC
        )
        kept = image.kept_until > datetime.datetime.now(datetime.UTC)
        state = State.KEPT if kept else State.DUE
        if journal.is_claimed(entry):
            state = State.BEING_FREED
    size_bytes = pool.image_size_bytes(image.image_id)
    return Trashed(image, size_bytes, deleted_at, state)


def find(pool: Pool, image: str) -> list[TrashedImage]:
    """The trashed images of that name, or the one with that id."""
    return [
        each
        for each in pool.trash_list()
        if image in (each.name, each.image_id)
    ]


@once_more
def restore(pool: Pool, image: TrashedImage) -> None:
    """Give a trashed image its name again, and keep it for good.

    :raises ImageExists: the name is taken
    :raises BeingCreated: a disk of that name is being made
    :raises DiskBusy: its space is being given back
    :raises ImageNotFound: it is not in the trash any more
    """
    check(pool, image)
    entry = journal.deletion(pool, image.image_id)
    claimed = None
    if entry is not None:
        claimed = journal.claim(pool, entry, _CLAIM_SECONDS)
        if claimed is None:
            raise _being_freed(pool, image)
    try:
        pool.trash_restore(image.image_id, image.name)
    except BaseException:
        if claimed is not None:
            with contextlib.suppress(errors.StorageError):
                journal.give_back(pool, claimed)
        raise
    if claimed is not None:
        journal.drop(pool, claimed)


def check(pool: Pool, image: TrashedImage) -> None:
    """Look whether it can be restored now; raises what restore does."""
    facts = _facts(pool, image)
    # It has the name itself when a restore was broken off in its middle.
    if pool.image_id(image.name) not in (None, image.image_id):
        raise errors.ImageExists("the name is taken", **facts)
    attempts = journal.creations(pool, f"{image.name}.")
    if not all(journal.is_abandoned(pool, entry) for entry in attempts):
        raise errors.BeingCreated("it is being made anew", **facts)
    entry = journal.deletion(pool, image.image_id)
    if entry is not None and journal.is_claimed(entry):
        raise _being_freed(pool, image)


def _being_freed(pool: Pool, image: TrashedImage) -> errors.DiskBusy:
    return errors.DiskBusy(
        "its space is being given back", **_facts(pool, image)
    )


def _facts(pool: Pool, image: TrashedImage) -> dict[str, str]:
    return {
        "operation": "restore from the trash",
        "pool": str(pool),
        "image": image.name,
    }
