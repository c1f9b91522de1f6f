# SPDX-License-Identifier: Apache-2.0

"""Flow: give a snapshot data of its own, so that nothing hangs on its disk.

Copying what it shares takes as long as its data is big: it is done in the
background, by the manager's task queue or by a process of ours, a few at a
time in a pool, whichever host asked for the snapshot. While it lasts the disk
may be deleted (its image stays in the trash), and the snapshot may be booted
from, and deleted in Glance.
"""

import contextlib
import dataclasses
import json
import time

from nova_rbd_backend import errors
from nova_rbd_backend.storage import (
    journal,
    lineage,
    offload,
    snapshots,
    sources,
    trash,
)
from nova_rbd_backend.storage.cluster import once_more
from nova_rbd_backend.storage.pool import Pool

# Longer than the largest image takes; a claim of a dead process that cannot
# be seen from here ends after it.
_CLAIM_SECONDS = 2 * 3600.0
_POLL_SECONDS = 0.5
# Taking the hold away is the one moment in which a delete in Glance is refused
# (10 to 40 ms). Nova ignores that when it deletes what a shelved instance was
# saved as, so it is not to be soon after the snapshot was made.
HELD_SECONDS = 60.0
SOFT_DEPTH_LIMIT = 4
#: Who copied what was copied already, or need not be.
NOBODY = "nobody"
# An upload of terabytes takes hours.
_LONGEST_MAKING_SECONDS = 24 * 3600.0


@dataclasses.dataclass(frozen=True)
class Detached:
    """:ivar by: who copied: "the manager", "this host", or NOBODY"""

    image: str
    by: str
    seconds: float


@once_more
def abandoned(pool: Pool) -> list[journal.Entry]:
    """Snapshots not known to be Glance's, whose maker is dead.

    Of one that cannot be seen from here that is assumed after a day.
    """
    return [
        entry
        for entry in journal.detachments(pool)
        if entry.offer is not journal.Offer.ACCEPTED
        and (
            journal.is_abandoned(pool, entry)
            or entry.age_seconds > _LONGEST_MAKING_SECONDS
        )
    ]


def may_be_known(pool: Pool, entry: journal.Entry) -> bool:
    """Whether Glance has to be asked whether it knows an abandoned one."""
    if pool.listed_id(entry.image) != entry.image_id:
        return False
    return entry.offer is journal.Offer.UNDER_WAY or not journal.is_abandoned(
        pool, entry
    )


@once_more
def remove_unknown(pool: Pool, entry: journal.Entry) -> bool:
    """Remove an abandoned snapshot that Glance does not know.

    :returns: False: it has changed since, and is left alone
    """
    # Nothing is removed on the word of an entry read some time ago.
    claimed = journal.claim(pool, entry, _CLAIM_SECONDS)
    if claimed is None:
        return False
    try:
        snapshots.withdraw(pool, claimed)
    except BaseException:
        with contextlib.suppress(errors.StorageError):
            journal.give_back(pool, claimed)
        raise
    return True


@once_more
def waiting(
    pool: Pool,
    soft_depth_limit: int = SOFT_DEPTH_LIMIT,
    held_seconds: float = HELD_SECONDS,
) -> list[journal.Entry]:
    """Snapshots that Glance knows and nobody detaches now.

    First those with more parents than the limit, then the oldest.
    """
    found = [
        entry
        for entry in _idle(pool)
        if not _is_settling(pool, entry, held_seconds)
    ]
    if len(found) > 1:
        found.sort(
            key=lambda entry: (
                lineage.depth(pool, entry.image_id) <= soft_depth_limit
            )
        )
    return found


@once_more
def settling(pool: Pool) -> bool:
    """Whether there are some that have but to be let go, in a while."""
    return any(_is_settling(pool, entry) for entry in _idle(pool))


def _idle(pool: Pool) -> list[journal.Entry]:
    return [
        entry
        for entry in journal.detachments(pool)
        if entry.offer is journal.Offer.ACCEPTED
        and not journal.is_claimed(entry)
    ]


def _is_settling(
    pool: Pool, entry: journal.Entry, held_seconds: float = HELD_SECONDS
) -> bool:
    if entry.age_seconds >= held_seconds or _is_trashed(pool, entry):
        return False
    try:
        return not _has_parent(pool, entry)
    except errors.ImageNotFound:
        return False


@once_more
def at_work(pool: Pool) -> int:
    """How many snapshots of the pool are being detached, by all hosts."""
    return sum(map(journal.is_claimed, journal.detachments(pool)))


@once_more
def detach(
    pool: Pool, entry: journal.Entry, held_seconds: float = HELD_SECONDS
) -> Detached | None:
    """Copy what a snapshot shares; detached or gone: done. Long.

    :param held_seconds: one that is younger is to be let go by a later call
    :returns: None: another process has it
    """
    started = time.monotonic()
    claimed = journal.claim(pool, entry, _CLAIM_SECONDS)
    if claimed is None:
        return None
    try:
        by = _detach(pool, claimed)
        let_go = _settle(pool, claimed, held_seconds)
    except BaseException:
        with contextlib.suppress(errors.StorageError):
            journal.give_back(pool, claimed)
        raise
    if let_go:
        journal.drop(pool, claimed)
    else:
        journal.give_back(pool, claimed)
    return Detached(entry.image, by, time.monotonic() - started)


def _detach(pool: Pool, entry: journal.Entry) -> str:
    by = NOBODY
    with contextlib.suppress(errors.ImageNotFound):
        if not _is_trashed(pool, entry) and _has_parent(pool, entry):
            _hold(pool, entry)
            by = _copy(pool, entry)
    # Not before: a snap that was removed while it had a clone goes for good
    # with the clone, if who deletes that may write to the disk's pool.
    if entry.source is not None:
        sources.remove(pool, entry.source)
    return by


def _settle(pool: Pool, entry: journal.Entry, held_seconds: float) -> bool:
    """Let it go; False: it is too early."""
    with contextlib.suppress(errors.ImageNotFound):
        young = entry.age_seconds < held_seconds
        if young and not _is_trashed(pool, entry):
            # Opened, so that one that is gone is not waited for.
            return not _is_held(pool, entry)
        _let_go(pool, entry)
        if _is_trashed(pool, entry):
            # Glance leaves what it has moved there to others.
            own_snaps = trash.own_snaps(entry.image)
            journal.begin_deletion(
                pool, entry.image, entry.image_id, own_snaps
            )
    return True


def _is_trashed(pool: Pool, entry: journal.Entry) -> bool:
    return pool.trash_get(entry.image_id) is not None


def _hold(pool: Pool, entry: journal.Entry) -> None:
    """Make sure that it is safe to be deleted meanwhile."""
    if not _is_held(pool, entry):
        with pool.open(image_id=entry.image_id, read_only=False) as image:
            image.create_snap(snapshots.HOLD)


def _let_go(pool: Pool, entry: journal.Entry) -> None:
    # Opened for writing without that snap it could not be deleted meanwhile:
    # not on the chance that there is one.
    if _is_held(pool, entry):
        with pool.open(
            image_id=entry.image_id, read_only=False, frees=True
        ) as image:
            image.remove_snap(snapshots.HOLD)


def _is_held(pool: Pool, entry: journal.Entry) -> bool:
    with pool.open(image_id=entry.image_id) as image:
        return snapshots.HOLD in (snap.name for snap in image.snaps())


def _copy(pool: Pool, entry: journal.Entry) -> str:
    if _copied_by_manager(pool, entry):
        return "the manager"
    try:
        with pool.open(image_id=entry.image_id, read_only=False) as image:
            image.flatten()
    except errors.StorageError:
        # The manager may have come back, and done it.
        if _has_parent(pool, entry):
            raise
    return "this host"


def _has_parent(pool: Pool, entry: journal.Entry) -> bool:
    return pool.parent_of(entry.image_id) is not None


def _copied_by_manager(pool: Pool, entry: journal.Entry) -> bool:
    """Queue it as a task and wait; False: it is to be done here.

    ceph-mgr, module rbd_support: a task that is queued already is not queued
    twice; one that failed leaves the list (16.2: pybind/mgr/rbd_support).
    """
    until = time.monotonic() + _CLAIM_SECONDS
    with contextlib.suppress(errors.StorageError):
        pool.cluster.mgr_command(
            "rbd task add flatten", image_spec=f"{pool}/{entry.image}"
        )
        while time.monotonic() < until and _is_queued(pool, entry):
            offload.native_sleep(_POLL_SECONDS)
        return not _has_parent(pool, entry)
    return False


def _is_queued(pool: Pool, entry: journal.Entry) -> bool:
    tasks = json.loads(pool.cluster.mgr_command("rbd task list"))
    return any(
        task.get("refs", {}).get("image_id") == entry.image_id
        for task in tasks
    )
