# SPDX-License-Identifier: Apache-2.0

"""Flow: free the space of deleted images, and undo abandoned creations."""

import contextlib
import dataclasses
import fnmatch
import time

from nova_rbd_backend import errors, names
from nova_rbd_backend.ceph.cluster import once_more
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage import fencing, journal
from nova_rbd_backend.storage.images.discard import (
    BUSY_LIMIT_SECONDS,
    own_snaps,
)
from nova_rbd_backend.storage.images.draft import settle
from nova_rbd_backend.storage.images.retention import Retention

# An import of terabytes takes hours. A creation that takes longer is reported.
_LONGEST_CREATION_SECONDS = 24 * 3600.0
# A discard tries again for BUSY_LIMIT_SECONDS while an image is busy. Its last
# attempt may wait 30 s for a dead client's watch.
_LONGEST_MOVE_SECONDS = 2 * BUSY_LIMIT_SECONDS
# Longer than freeing the largest image takes: the claim is not renewed.
_CLAIM_SECONDS = 2 * 3600.0


@dataclasses.dataclass(frozen=True)
class Kept:
    """An image that was not freed, and why."""

    image: str  # its name when it was deleted, or the name of a draft
    image_id: str  # empty: it is not deleted, but a draft
    reason: str
    age_seconds: float


@dataclasses.dataclass(frozen=True)
class PurgeReport:
    """What a purge did."""

    purged: tuple[str, ...]
    waiting: tuple[Kept, ...]  # not due yet, or needed or freed elsewhere
    stuck: tuple[Kept, ...]  # due, but held: the operator has to know
    freed_elsewhere: int  # of the waiting: another process is at work on them
    left: int  # not tried, or not tried again, because a limit was reached
    seconds: float
    clock: str | None  # what is wrong with this host's clock


@once_more
def purge(
    pool: Pool, limit_seconds: float = 300.0, max_images: int = 1000
) -> PurgeReport:
    """Free the space of deleted images, whichever host deleted them.

    Begins with the oldest. Each limit ends the run between two images. Takes
    long, so run it in the background.
    """
    started = time.monotonic()
    run = _Run(pool)
    for entry in journal.creations(pool):
        if journal.is_abandoned(pool, entry):
            run.settle(entry)
        elif entry.age_seconds > _LONGEST_CREATION_SECONDS:
            reason = f"{entry.host} may still be making an image of it"
            run.stuck.append(_kept(entry, reason))
    _adopt(pool)
    left = 0
    entries = journal.deletions(pool)
    while entries:
        purged = len(run.purged)
        for entry in entries:
            full = len(run.purged) >= max_images
            if full or time.monotonic() - started > limit_seconds:
                run.held.pop(entry.image_id, None)
                left += 1
            else:
                run.free(entry)
        # Parents may have been tried before their clones were freed.
        again = run.held if len(run.purged) > purged else {}
        entries = [e for e in journal.deletions(pool) if e.image_id in again]
    return PurgeReport(
        tuple(run.purged),
        (*run.waiting, *run.held.values()),
        tuple(run.stuck),
        run.freed_elsewhere,
        left,
        time.monotonic() - started,
        run.retention.remark,
    )


@once_more
def purge_one(
    pool: Pool, name: str, image_id: str, force: bool = False
) -> Kept | None:
    """Free the space of one trashed image, unless it is free already.

    :param force: even if its retention is not over
    :returns: why it is kept; None: it is freed
    """
    entry = journal.begin_deletion(pool, name, image_id, own_snaps(name))
    run = _Run(pool)
    run.free(entry, force)
    kept = (*run.waiting, *run.held.values(), *run.stuck)
    return kept[0] if kept else None


class _Run:
    """One purge of a pool."""

    def __init__(self, pool: Pool):
        self.pool = pool
        self.retention = Retention(pool)
        self.purged: list[str] = []
        self.waiting: list[Kept] = []
        # By id: images that may become free with their clones.
        self.held: dict[str, Kept] = {}
        self.stuck: list[Kept] = []
        self.freed_elsewhere = 0

    def settle(self, entry: journal.Entry) -> None:
        try:
            settle(self.pool, entry)
        except errors.OperationTimedOut as error:
            _require_answer(self.pool)
            self.stuck.append(_kept(entry, str(error)))
        except errors.UNREACHED:
            raise
        except errors.StorageError as error:
            self.stuck.append(_kept(entry, str(error)))

    def free(self, entry: journal.Entry, force: bool = False) -> None:
        trashed = None if force else self.pool.trash.get(entry.image_id)
        reason = self.retention.reason(trashed)
        if reason is not None:
            self.waiting.append(_kept(entry, reason))
            return
        with journal.claimed(self.pool, entry, _CLAIM_SECONDS) as claim:
            if claim is None:
                host = entry.claim.split("/")[0] or "another process"
                self.waiting.append(_kept(entry, f"being freed by {host}"))
                self.freed_elsewhere += 1
                return
            self.held.pop(entry.image_id, None)
            held = _free(self.pool, claim.entry, force)
            if held is None or held.is_disk:
                claim.finish()
        if held is None:
            self.purged.append(entry.image)
        elif held.by_clones:
            self.held[entry.image_id] = _kept(entry, held.reason)
        elif held.is_disk:
            self.waiting.append(_kept(entry, held.reason))
        else:
            self.stuck.append(_kept(entry, held.reason))


def _require_answer(pool: Pool) -> None:
    """Raise after a time-out unless the pool itself gives answers.

    If it does, another pool gave none, which has a clone, a parent or the disk
    of a snapshot, or only one PG of this pool. The other images can be freed.

    :raises OperationTimedOut: the pool gives no answer
    """
    pool.directory.listed_id("")


def _kept(entry: journal.Entry, reason: str) -> Kept:
    image = entry.draft or entry.image
    return Kept(image, entry.image_id, reason, entry.age_seconds)


@dataclasses.dataclass(frozen=True)
class _Held:
    """Why an image could not be freed."""

    reason: str
    by_clones: bool = False  # clones that will be detached or deleted
    is_disk: bool = False  # it is not deleted after all


def _free(
    pool: Pool, entry: journal.Entry, force: bool = False
) -> _Held | None:
    """Free one image; return what holds it, or None."""
    try:
        if pool.trash.restore_renamed(entry.image_id):
            return _Held("it is a disk, and stays one", is_disk=True)
        return _remove(pool, entry, force)
    except errors.ImageNotFound as error:
        return _judge_missing(pool, entry, error)
    except errors.MoveUnfinished as error:
        if entry.age_seconds < BUSY_LIMIT_SECONDS:
            return _Held(str(error))
        # No process works on the move any more. The next run frees the image.
        pool.trash.finish_move(entry.image_id, entry.image)
        return _Held("its interrupted move to the trash is finished now")
    except errors.OperationTimedOut as error:
        _require_answer(pool)
        return _Held(str(error))
    except errors.UNREACHED:
        raise
    except errors.DiskBusy as error:
        return _Held(_busy_reason(pool, entry) or str(error))
    except errors.StorageError as error:
        return _Held(str(error))


def _remove(pool: Pool, entry: journal.Entry, force: bool) -> _Held | None:
    """Remove a trashed image; return what else holds it, or None."""
    # A purge that died may have the lock of the image that it was freeing. A
    # delete that timed out may have left the entry of a disk in use, whose
    # clients are no concern of a purge.
    if pool.trash.get(entry.image_id) is not None:
        fencing.fence_dead(pool, {entry.image: entry.image_id})
        pool = _beside_parent(pool, entry.image_id)
    try:
        pool.trash.remove(entry.image_id, force)
    except errors.HasSnaps:
        held = _remove_snaps(pool, entry)
        if held is not None:
            return held
        pool.trash.remove(entry.image_id, force)
    return None


def _beside_parent(pool: Pool, image_id: str) -> Pool:
    """Return the pool, over another connection if the parent is locked.

    librbd may have to open the parent (see Trash.remove), which may be the
    disk of a guest. A snapshot is a clone of such a disk.
    """
    with contextlib.suppress(errors.NotFound, errors.NotPermitted):
        if (parent := pool.parent_of(image_id)) is None:
            return pool
        parent_pool, parent_id = parent
        if parent_pool.holders.locks(parent_id):
            pool, parent_pool = (
                each.for_image_in_use() for each in (pool, parent_pool)
            )
            fencing.fence_dead(parent_pool, {parent_id: parent_id})
    return pool


def _judge_missing(
    pool: Pool, entry: journal.Entry, error: errors.ImageNotFound
) -> _Held | None:
    """Judge an image after "no such image"; None: it is gone.

    librbd also says so of an image that is there, while one of its clones is
    being removed, or if it has a record of a clone that does not exist.
    """
    if not _is_listed(pool, entry):
        # Not earlier: an image that is moved to the trash is there before it
        # leaves the directory.
        if pool.trash.get(entry.image_id) is not None:
            return _Held(f"it is in the trash, but not free: {error}")
        # An image that is restored is in the directory before it leaves the
        # trash.
        if not _is_listed(pool, entry):
            return None
    if entry.age_seconds < _LONGEST_MOVE_SECONDS:
        return _Held("its move to the trash is under way")
    # An operator has restored it, or it was never moved to the trash.
    return _Held("it is a disk, and stays one", is_disk=True)


def _is_listed(pool: Pool, entry: journal.Entry) -> bool:
    return pool.directory.listed_name(entry.image_id) is not None


def _busy_reason(pool: Pool, entry: journal.Entry) -> str | None:
    with (
        contextlib.suppress(errors.StorageError),
        pool.open(image_id=entry.image_id) as image,
    ):
        clients = [each.address for each in image.clients() if each.watches]
        return f"open by {', '.join(clients)}" if clients else None
    return None


def _remove_snaps(pool: Pool, entry: journal.Entry) -> _Held | None:
    """Remove our snaps; return what else holds the image, or None.

    librbd hides a removed snap that has clones, and keeps it for them.
    """
    patterns = entry.own_snaps
    with fencing.fenced(pool, entry.image, entry.image_id, frees=True) as disk:
        for snap in disk.snaps():
            own = any(fnmatch.fnmatchcase(snap.name, p) for p in patterns)
            if snap.user and own:
                disk.remove_snap(snap.name)
        left = disk.snaps()
        if not left:
            return None
        children = disk.children()
    reason = f"has snaps {', '.join(snap.name for snap in left)}"
    if children:
        reason += f" with clones {', '.join(map(str, children))}"
    # Clones that are snapshots will be detached. A deleted snapshot or an aged
    # base waits for the disks made of it. Clones in the trash are not listed.
    temporary = (
        names.is_snapshot(entry.image)
        or names.is_base(entry.image)
        or all(names.is_snapshot(child.image) for child in children)
    )
    return _Held(
        reason, by_clones=temporary and not any(snap.user for snap in left)
    )


def _adopt(pool: Pool) -> None:
    """Record deletions of our images that others have moved to the trash.

    Glance does that with a snapshot that disks were booted from, and never
    frees it. A snapshot that is being detached is freed after that. An
    operator may do that with a base.
    """
    known = {
        entry.image_id
        for entry in (*journal.deletions(pool), *journal.detachments(pool))
    }
    for trashed in pool.trash.entries():
        name, image_id = trashed.name, trashed.image_id
        ours = names.is_snapshot(name) or names.is_base(name)
        if ours and image_id not in known:
            journal.begin_deletion(pool, name, image_id, own_snaps(name))
