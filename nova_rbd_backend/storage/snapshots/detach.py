# SPDX-License-Identifier: Apache-2.0

"""Flow: give a snapshot data of its own, so that it does not need its disk.

The time to copy the shared data is proportional to its size. The manager's
task queue or a process of ours copies it in the background, for a few
snapshots of a pool at a time, whichever host made them. Meanwhile the disk may
be deleted (its image stays in the trash), and instances may boot from the
snapshot, and Glance may delete it.
"""

import contextlib
import dataclasses
import datetime
import json
import time
from collections.abc import Iterable, Iterator

from nova_rbd_backend import errors, threads
from nova_rbd_backend.ceph import lease
from nova_rbd_backend.ceph.cluster import once_more
from nova_rbd_backend.ceph.image import Image
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage import due, fencing, journal
from nova_rbd_backend.storage.images import discard, purge, source_snap
from nova_rbd_backend.storage.snapshots import make as snapshots

# Longer than the largest image takes. After this time the claim of a dead
# process ends, if this host cannot see that it is dead.
_CLAIM_SECONDS = 2 * 3600.0
_POLL_SECONDS = 0.5

# While HOLD is removed (10 to 40 ms), Glance refuses to delete the snapshot.
# Nova ignores that refusal when it deletes the snapshot of a shelved instance,
# so HOLD is not removed soon after the snapshot was made.
HELD_SECONDS = 60.0
SOFT_DEPTH_LIMIT = 4

#: For a snapshot that shared nothing: there was nothing to copy.
NOBODY = "nobody"
# An upload of terabytes takes hours.
_LONGEST_MAKING = datetime.timedelta(days=1)
# The lease of the host that looks at the snapshots of all hosts.
_TURN = "detach"


@dataclasses.dataclass(frozen=True)
class Detached:
    """A snapshot that shares nothing with its disk any more."""

    image: str
    by: str  # who copied its data: "the manager", "this host", or NOBODY
    seconds: float


@dataclasses.dataclass(frozen=True)
class Look:
    """The snapshots that this process has to look at now."""

    entries: list[journal.Entry]
    is_whole: bool  # they are those of all hosts


def look_by_turns(pool: Pool, period_seconds: int) -> Look:
    """Find the snapshots of all hosts once in a period, or else our own.

    :param period_seconds: for how long no other host finds those of all hosts
    """
    # Not @once_more: the second call would find the lease of the first.
    with lease.turn(pool, _TURN, period_seconds, frees=True) as turn:
        if turn is not None:
            return Look(journal.detachments(pool), is_whole=True)
    return Look(journal.due_here(pool, journal.DETACH), is_whole=False)


@contextlib.contextmanager
def slot(pool: Pool, at_once: int) -> Iterator[bool]:
    """Be one of the processes that may detach snapshots of the pool now.

    Lends False if ``at_once`` others detach. The right of a process that dies
    ends soon after that.
    """
    with contextlib.ExitStack() as stack:
        yield any(
            stack.enter_context(
                lease.turn(pool, f"{_TURN}-{number}", 0, frees=True)
            )
            for number in range(at_once)
        )


@once_more
def abandoned(
    pool: Pool, entries: Iterable[journal.Entry]
) -> list[journal.Entry]:
    """Return those snapshots of dead makers that Glance may not know.

    A process that cannot be seen from here counts as dead after a day.
    """
    return [
        entry
        for entry in entries
        if entry.offer is not journal.Offer.ACCEPTED
        and (journal.is_abandoned(pool, entry) or _is_old(pool, entry))
    ]


def _is_old(pool: Pool, entry: journal.Entry) -> bool:
    """Return whether a snapshot was made more than a day ago.

    By the clocks of OSDs: that of its maker or of this host may be wrong.
    """
    if entry.age_seconds < _LONGEST_MAKING.total_seconds():
        return False
    created_at, _ = pool.headers.times(entry.image_id)
    if created_at is None:
        return True  # there is no such image any more
    with contextlib.suppress(errors.NotSupported):
        return pool.clocks().now() - created_at > _LONGEST_MAKING
    return False


def may_be_known(pool: Pool, entry: journal.Entry) -> bool:
    """Return whether Glance may know an abandoned snapshot."""
    listed = pool.directory.listed_id(entry.image) == entry.image_id
    offered = entry.offer is journal.Offer.UNDER_WAY
    return listed and (offered or not journal.is_abandoned(pool, entry))


@once_more
def remove_unknown(pool: Pool, entry: journal.Entry) -> bool:
    """Remove an abandoned snapshot that Glance does not know.

    :returns: False if its entry has changed, so that it is left alone
    """
    # The claim shows that the entry is as it was when it was read.
    with journal.claimed(pool, entry, _CLAIM_SECONDS) as claim:
        if claim is None:
            return False
        snapshots.remove(pool, claim.entry)
    return True


@once_more
def waiting(
    pool: Pool,
    entries: Iterable[journal.Entry],
    soft_depth_limit: int = SOFT_DEPTH_LIMIT,
    held_seconds: float = HELD_SECONDS,
) -> list[journal.Entry]:
    """Return those that Glance knows and no process detaches now.

    First those with more parents than the limit, then the oldest. Notes them,
    also those of other hosts, so that this process looks until they end.
    """
    found = [
        entry
        for entry in _idle(entries)
        if not _awaits_release(pool, entry, held_seconds)
    ]
    for entry in found:
        due.note(pool, entry.key)
    if len(found) > 1:
        found.sort(
            key=lambda entry: pool.depth(entry.image_id) <= soft_depth_limit
        )
    return found


@once_more
def awaits_release(pool: Pool) -> bool:
    """Return whether a copied snapshot of ours has HOLD until later."""
    own = journal.due_here(pool, journal.DETACH)
    return any(_awaits_release(pool, entry) for entry in _idle(own))


def _idle(entries: Iterable[journal.Entry]) -> list[journal.Entry]:
    return [
        entry
        for entry in entries
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
def detach(
    pool: Pool, entry: journal.Entry, held_seconds: float = HELD_SECONDS
) -> Detached | None:
    """Copy the data that a snapshot shares. Takes long.

    Does nothing if the snapshot is detached or deleted already.

    :param held_seconds: HOLD stays on a younger snapshot for a later call
    :returns: None if another process detaches it
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
            if not _is_held(pool, entry):
                with _opened(pool, entry) as image:
                    image.create_snap(snapshots.HOLD)
            by = _copy(pool, entry)
    # Not earlier: a snap that is removed while it has a clone goes with that
    # clone, but only if the user that deletes the clone may write to the
    # disk's pool.
    if entry.source is not None:
        source_snap.remove(pool, entry.source)
        name, _, namespace = entry.source.pool.partition("/")
        disks = pool.beside(name, namespace)
        purge.look_at_parent(disks, entry.source.image_id)
    return by


def _release(pool: Pool, entry: journal.Entry, held_seconds: float) -> bool:
    """Remove HOLD; return False if it is too early."""
    with contextlib.suppress(errors.ImageNotFound):
        young = entry.age_seconds < held_seconds
        if young and not _is_trashed(pool, entry):
            # For a deleted image this raises, so that it is not waited for.
            return not _is_held(pool, entry)
        # Glance cannot delete an image that is open for writing without HOLD,
        # so such an image is not opened for writing.
        if _is_held(pool, entry):
            with _opened(pool, entry, frees=True) as image:
                image.remove_snap(snapshots.HOLD)
        if _is_trashed(pool, entry):
            # Glance never frees an image that it has moved to the trash.
            own_snaps = discard.own_snaps(entry.image)
            journal.begin_deletion(
                pool, entry.image, entry.image_id, own_snaps
            )
    return True


def _is_trashed(pool: Pool, entry: journal.Entry) -> bool:
    return pool.trash.get(entry.image_id) is not None


def _is_held(pool: Pool, entry: journal.Entry) -> bool:
    with pool.open(image_id=entry.image_id) as image:
        return snapshots.HOLD in (snap.name for snap in image.snaps())


def _opened(
    pool: Pool, entry: journal.Entry, frees: bool = False
) -> contextlib.AbstractContextManager[Image]:
    return fencing.fenced(pool, entry.image, entry.image_id, frees)


def _copy(pool: Pool, entry: journal.Entry) -> str:
    # The manager, too, would wait for a process that died at this work.
    fencing.fence_dead(pool, {entry.image: entry.image_id})
    if _copied_by_manager(pool, entry):
        return "the manager"
    try:
        with _opened(pool, entry) as image:
            image.flatten()
    except errors.StorageError:
        # The manager may be back, and have copied it.
        if _has_parent(pool, entry):
            raise
    return "this host"


def _has_parent(pool: Pool, entry: journal.Entry) -> bool:
    return pool.parent_of(entry.image_id) is not None


def _copied_by_manager(pool: Pool, entry: journal.Entry) -> bool:
    """Have the manager copy it; return False if it has to be copied here.

    The module rbd_support does not queue a task twice, and removes a task that
    has failed from its list (16.2: pybind/mgr/rbd_support).
    """
    until = time.monotonic() + _CLAIM_SECONDS
    ask = pool.cluster.mgr_command
    with contextlib.suppress(errors.StorageError):
        ask("rbd task add flatten", image_spec=f"{pool}/{entry.image}")
        while time.monotonic() < until:
            tasks = json.loads(ask("rbd task list"))
            queued = [task.get("refs", {}).get("image_id") for task in tasks]
            if entry.image_id not in queued:
                break
            threads.native_sleep(_POLL_SECONDS)
        return not _has_parent(pool, entry)
    return False
