# SPDX-License-Identifier: Apache-2.0

"""Flow: give a snapshot data of its own, so that it needs its disk no more.

Copying what it shares takes time in proportion to its data. It happens in the
background, by the manager's task queue or by a process of ours, a few
snapshots at a time in a pool, whichever host asked for them. Meanwhile the
disk may be deleted (its image stays in the trash), and the snapshot may be
booted from, and deleted in Glance.
"""

import contextlib
import dataclasses
import json
import time

from nova_rbd_backend import errors, threads
from nova_rbd_backend.ceph.cluster import once_more
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.images import discard, source_snap
from nova_rbd_backend.storage.snapshots import make as snapshots

# Longer than the largest image takes. The claim of a dead process that cannot
# be seen from here ends after this time.
_CLAIM_SECONDS = 2 * 3600.0
_POLL_SECONDS = 0.5

# While HOLD is removed (10 to 40 ms) Glance refuses to delete the snapshot.
# Nova ignores that refusal when it deletes what a shelved instance was saved
# as, so HOLD is not removed soon after the snapshot was made.
HELD_SECONDS = 60.0
SOFT_DEPTH_LIMIT = 4

#: Who copied a snapshot that shared nothing.
NOBODY = "nobody"
# An upload of terabytes takes hours.
_LONGEST_MAKING_SECONDS = 24 * 3600.0


@dataclasses.dataclass(frozen=True)
class Detached:
    """A snapshot that shares nothing with its disk any more.

    :ivar by: who copied: "the manager", "this host", or NOBODY
    """

    image: str
    by: str
    seconds: float


@once_more
def abandoned(pool: Pool) -> list[journal.Entry]:
    """Return snapshots not known to be Glance's, whose maker is dead.

    A maker that cannot be seen from here is assumed dead after a day.
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
    """Return whether Glance may know an abandoned snapshot."""
    if pool.directory.listed_id(entry.image) != entry.image_id:
        return False
    return entry.offer is journal.Offer.UNDER_WAY or not journal.is_abandoned(
        pool, entry
    )


@once_more
def remove_unknown(pool: Pool, entry: journal.Entry) -> bool:
    """Remove an abandoned snapshot that Glance does not know.

    :returns: False: it has changed since, and is left alone
    """
    # The entry was read some time ago: nothing is removed without a claim.
    with journal.claimed(pool, entry, _CLAIM_SECONDS) as claim:
        if claim is None:
            return False
        snapshots.remove(pool, claim.entry)
    return True


@once_more
def waiting(
    pool: Pool,
    soft_depth_limit: int = SOFT_DEPTH_LIMIT,
    held_seconds: float = HELD_SECONDS,
) -> list[journal.Entry]:
    """Return snapshots that Glance knows and nobody detaches now.

    First those with more parents than the limit, then the oldest.
    """
    found = [
        entry
        for entry in _idle(pool)
        if not _awaits_release(pool, entry, held_seconds)
    ]
    if len(found) > 1:
        found.sort(
            key=lambda entry: pool.depth(entry.image_id) <= soft_depth_limit
        )
    return found


@once_more
def awaits_release(pool: Pool) -> bool:
    """Return whether some are copied, and only have to be released later."""
    return any(_awaits_release(pool, entry) for entry in _idle(pool))


def _idle(pool: Pool) -> list[journal.Entry]:
    return [
        entry
        for entry in journal.detachments(pool)
        if entry.offer is journal.Offer.ACCEPTED
        and not journal.is_claimed(entry)
    ]


def _awaits_release(
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
    """Count the snapshots of the pool that are being detached, by any host."""
    return sum(map(journal.is_claimed, journal.detachments(pool)))


@once_more
def detach(
    pool: Pool, entry: journal.Entry, held_seconds: float = HELD_SECONDS
) -> Detached | None:
    """Copy what a snapshot shares. Detached or deleted already: done. Long.

    :param held_seconds: a younger snapshot is released by a later call
    :returns: None: another process detaches it
    """
    started = time.monotonic()
    with journal.claimed(pool, entry, _CLAIM_SECONDS) as claim:
        if claim is None:
            return None
        by = _detach(pool, claim.entry)
        if _release(pool, claim.entry, held_seconds):
            claim.finish()
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
        source_snap.remove(pool, entry.source)
    return by


def _release(pool: Pool, entry: journal.Entry, held_seconds: float) -> bool:
    """Remove the snap that holds it; False: it is too early."""
    with contextlib.suppress(errors.ImageNotFound):
        young = entry.age_seconds < held_seconds
        if young and not _is_trashed(pool, entry):
            # Opens the image, so that a deleted one is not waited for.
            return not _is_held(pool, entry)
        _remove_hold(pool, entry)
        if _is_trashed(pool, entry):
            # Glance never looks again at what it has moved to the trash.
            own_snaps = discard.own_snaps(entry.image)
            journal.begin_deletion(
                pool, entry.image, entry.image_id, own_snaps
            )
    return True


def _is_trashed(pool: Pool, entry: journal.Entry) -> bool:
    return pool.trash.get(entry.image_id) is not None


def _hold(pool: Pool, entry: journal.Entry) -> None:
    """Make sure that it is safe to be deleted meanwhile."""
    if not _is_held(pool, entry):
        with pool.open(image_id=entry.image_id, read_only=False) as image:
            image.create_snap(snapshots.HOLD)


def _remove_hold(pool: Pool, entry: journal.Entry) -> None:
    # While it is open for writing without that snap it cannot be deleted: so
    # it is not opened unless there is one.
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
        # The manager may have come back, and copied it.
        if _has_parent(pool, entry):
            raise
    return "this host"


def _has_parent(pool: Pool, entry: journal.Entry) -> bool:
    return pool.parent_of(entry.image_id) is not None


def _copied_by_manager(pool: Pool, entry: journal.Entry) -> bool:
    """Queue a task and wait for it; False: it has to be copied here.

    ceph-mgr, module rbd_support: a task that is queued already is not queued
    twice; one that failed leaves the list (16.2: pybind/mgr/rbd_support).
    """
    until = time.monotonic() + _CLAIM_SECONDS
    with contextlib.suppress(errors.StorageError):
        pool.cluster.mgr_command(
            "rbd task add flatten", image_spec=f"{pool}/{entry.image}"
        )
        while time.monotonic() < until and _is_queued(pool, entry):
            threads.native_sleep(_POLL_SECONDS)
        return not _has_parent(pool, entry)
    return False


def _is_queued(pool: Pool, entry: journal.Entry) -> bool:
    tasks = json.loads(pool.cluster.mgr_command("rbd task list"))
    return any(
        task.get("refs", {}).get("image_id") == entry.image_id
        for task in tasks
    )
