# SPDX-License-Identifier: Apache-2.0

"""Flow: free the space of deleted images, and undo abandoned creations."""

import contextlib
import dataclasses
import fnmatch
import time
from collections.abc import Iterable, Iterator, Sequence

from nova_rbd_backend import errors, names
from nova_rbd_backend.ceph import lease
from nova_rbd_backend.ceph.cluster import once_more
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.ceph.trash import TrashedImage
from nova_rbd_backend.storage import due, fencing, journal
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
# The lease of the host that looks at the deletions of all hosts.
_TURN = "purge"
# Of an image's clones, in a message.
_MOST_SHOWN = 10
# To ask the trash about each of more images costs more than to list it, which
# takes librbd a request for each 512 images (16.2).
_FEW = 10


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
    is_whole: bool  # looked at the deletions of all hosts
    seconds: float
    clock: str | None  # what is wrong with this host's clock


def purge_by_turns(pool: Pool, period_seconds: int) -> PurgeReport:
    """Purge what any host has left, once in a period, or else what is ours.

    Of a thousand hosts, one looks at all deletions of the pool. The others
    look at those that they have begun, or whose last clone they have removed.

    :param period_seconds: for how long no other host has this turn
    """
    # Not @once_more: the second call would find the lease of the first.
    with lease.turn(pool, _TURN, period_seconds, frees=True) as turn:
        if turn is not None:
            report = purge(pool)
            turn.complete = not report.left
            return report
    return purge_own(pool)


@once_more
def purge(
    pool: Pool, limit_seconds: float = 300.0, max_images: int = 1000
) -> PurgeReport:
    """Free the space of deleted images, whichever host deleted them.

    Begins with the oldest. Each limit ends the run between two images. Takes
    long, so run it in the background.
    """
    run = _Run(pool, limit_seconds, max_images)
    run.settle_abandoned()
    entries = journal.deletions(pool)
    trashed = run.list_trash()
    entries += _adopt(pool, entries, trashed)
    run.free_each(entries)
    return run.report(is_whole=True)


@once_more
def purge_own(pool: Pool) -> PurgeReport:
    """Free the space of the images that are noted in :mod:`..due`.

    Also undoes the creations of dead processes of this host.
    """
    run = _Run(pool)
    run.settle_abandoned()
    entries = journal.due_here(pool, journal.DELETE)
    if len(entries) > _FEW:
        run.list_trash()
    run.free_each(entries)
    return run.report(is_whole=False)


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

    def __init__(
        self,
        pool: Pool,
        limit_seconds: float = 300.0,
        max_images: int = 1000,
    ):
        self.pool = pool
        self.retention = Retention(pool)
        self.purged: list[str] = []
        self.waiting: list[Kept] = []
        # By id: the trash as it was listed, to see what is not due yet.
        self.listed: dict[str, TrashedImage] = {}
        # By id: images that may become free with their clones.
        self.held: dict[str, Kept] = {}
        self.stuck: list[Kept] = []
        self.freed_elsewhere = 0
        self.left = 0
        self._started = time.monotonic()
        self._limit_seconds = limit_seconds
        self._max_images = max_images

    def report(self, is_whole: bool) -> PurgeReport:
        return PurgeReport(
            tuple(self.purged),
            (*self.waiting, *self.held.values()),
            tuple(self.stuck),
            self.freed_elsewhere,
            self.left,
            is_whole,
            time.monotonic() - self._started,
            self.retention.remark,
        )

    def list_trash(self) -> list[TrashedImage]:
        """List the trash, so that what it has to keep is not asked about."""
        found = self.pool.trash.entries()
        self.listed = {image.image_id: image for image in found}
        return found

    def settle_abandoned(self) -> None:
        for entry in journal.creations(self.pool):
            if journal.is_abandoned(self.pool, entry):
                self.settle(entry)
            elif entry.age_seconds > _LONGEST_CREATION_SECONDS:
                reason = f"{entry.host} may still be making an image of it"
                self.stuck.append(_kept(entry, reason))

    def free_each(self, entries: list[journal.Entry]) -> None:
        while entries:
            purged = len(self.purged)
            for entry in entries:
                full = len(self.purged) >= self._max_images
                seconds = time.monotonic() - self._started
                if full or seconds > self._limit_seconds:
                    self.held.pop(entry.image_id, None)
                    self.left += 1
                else:
                    self.free(entry)
            # Parents may have been tried before their clones were freed.
            again = self.held if len(self.purged) > purged else {}
            entries = [entry for entry in entries if entry.image_id in again]

    def settle(self, entry: journal.Entry) -> None:
        try:
            settle(self.pool, entry)
        except errors.OperationTimedOut as error:
            self._put_off(entry, error)
        except errors.UNREACHED:
            raise
        except errors.StorageError as error:
            self.stuck.append(_kept(entry, str(error)))

    def _put_off(
        self, entry: journal.Entry, error: errors.OperationTimedOut
    ) -> None:
        _require_answer(self.pool)
        self.stuck.append(_kept(entry, str(error)))

    def free(self, entry: journal.Entry, force: bool = False) -> None:
        # Before the look, so that what is noted meanwhile stays noted.
        was_noted = due.take(self.pool, entry.key)
        is_stuck = True
        try:
            is_stuck = self._is_stuck(entry, force)
        finally:
            # The host that has the turn tries the young ones again, too.
            young = entry.age_seconds < _LONGEST_MOVE_SECONDS
            if is_stuck and (was_noted or young):
                due.note(self.pool, entry.key)

    def _is_stuck(self, entry: journal.Entry, force: bool) -> bool:
        """Free an image; return whether this process has to try it again."""
        try:
            if not force and self._has_to_wait(entry):
                return False
        except errors.OperationTimedOut as error:
            # To free it would wait for the same answer, and for as long.
            self._put_off(entry, error)
            return True
        with journal.claimed(self.pool, entry, _CLAIM_SECONDS) as claim:
            if claim is None:
                host = entry.claim.split("/")[0] or "another process"
                self.waiting.append(_kept(entry, f"being freed by {host}"))
                self.freed_elsewhere += 1
                return True  # the other process may die or fail
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
            return True
        return False

    def _has_to_wait(self, entry: journal.Entry) -> bool:
        """Return whether an image is not due or has clones; only reads."""
        # What was not to be kept when the trash was listed is asked about
        # again: it may have been restored, and deleted for some time.
        trashed = self.listed.get(entry.image_id)
        if not (reason := self.retention.reason(trashed)):
            trashed = self.pool.trash.get(entry.image_id)
            reason = self.retention.reason(trashed)
        if reason:
            self.waiting.append(_kept(entry, reason))
        elif trashed and (needed := _reason_needed(self.pool, entry)):
            self.held[entry.image_id] = _kept(entry, needed)
        else:
            return False
        return True


def _reason_needed(pool: Pool, entry: journal.Entry) -> str | None:
    """Return why an image waits for its clones; None: it may be free."""
    name, image_id = entry.image, entry.image_id
    try:
        if names.is_snapshot(name) or names.is_base(name):
            return "has clones" if pool.headers.has_clones(image_id) else None
        clones = list(pool.clones(image_id))
        if clones and _are_temporary(entry, clones):
            return f"has clones {_shown(clones)}"
    except errors.OperationTimedOut:
        raise
    except errors.StorageError:
        pass  # _free finds what is wrong
    return None


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
    parent = None
    if pool.trash.get(entry.image_id) is not None:
        fencing.fence_dead(pool, {entry.image: entry.image_id})
        with contextlib.suppress(errors.NotFound, errors.NotPermitted):
            if (parent := pool.parent_of(entry.image_id)) is not None:
                pool = _beside(pool, *parent)
    try:
        pool.trash.remove(entry.image_id, force)
    except errors.HasSnaps:
        held = _remove_snaps(pool, entry)
        if held is not None:
            return held
        pool.trash.remove(entry.image_id, force)
    if parent is not None:
        look_at_parent(*parent)
    return None


def _beside(pool: Pool, parent_pool: Pool, parent_id: str) -> Pool:
    """Return the pool, over another connection if the parent is locked.

    librbd may have to open the parent (see Trash.remove), which may be the
    disk of a guest. A snapshot is a clone of such a disk.
    """
    with contextlib.suppress(errors.NotFound, errors.NotPermitted):
        if parent_pool.holders.locks(parent_id):
            pool, parent_pool = (
                each.for_image_in_use() for each in (pool, parent_pool)
            )
            fencing.fence_dead(parent_pool, {parent_id: parent_id})
    return pool


def look_at_parent(pool: Pool, image_id: str) -> None:
    """Have this process look soon at an image that has lost a clone.

    Does nothing unless the image is deleted. After an error, the host that has
    the turn finds it.
    """
    with contextlib.suppress(errors.StorageError):
        if (entry := journal.deletion(pool, image_id)) is not None:
            due.note(pool, entry.key)
        elif (
            pool.trash.has(image_id)
            and (trashed := pool.trash.get(image_id))
            and _is_adopted(trashed.name)
            and journal.detachment(pool, image_id) is None
        ):
            _adopt_one(pool, trashed)


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
    reason = f"has snaps {', '.join(snap.name for snap in left)}"
    clones = list(pool.clones(entry.image_id))
    if clones:
        reason += f" with clones {_shown(clones)}"
    temporary = _are_temporary(entry, clones)
    return _Held(
        reason, by_clones=temporary and not any(snap.user for snap in left)
    )


def _are_temporary(
    entry: journal.Entry, clones: Iterable[tuple[Pool, str]]
) -> bool:
    """Return whether an image only has to wait for its clones to go.

    Clones that are snapshots will be detached. A deleted snapshot or an aged
    base waits for the disks made of it.
    """
    return (
        names.is_snapshot(entry.image)
        or names.is_base(entry.image)
        or all(names.is_snapshot(path.image) for path in _listed(clones))
    )


def _shown(clones: Sequence[tuple[Pool, str]]) -> str:
    """Return clones as text; of many, the first ones."""
    shown = [str(path) for path in _listed(clones[:_MOST_SHOWN])]
    others = len(clones) - len(shown)
    return ", ".join((*shown, *([f"{others} others"] if others else [])))


def _listed(clones: Iterable[tuple[Pool, str]]) -> Iterator[names.ImagePath]:
    """Yield the paths of those clones that are not in the trash.

    :raises ImageNotFound: there is no such image, or it is being removed
    """
    for pool, image_id in clones:
        name: str | None = image_id  # in a pool that may not be read
        with contextlib.suppress(errors.NotPermitted):
            name = pool.directory.listed_name(image_id)
            if name is None and pool.trash.get(image_id) is None:
                raise errors.ImageNotFound(
                    "recorded as a clone",
                    operation="look up",
                    pool=str(pool),
                    image=image_id,
                )
        if name is not None:
            yield names.ImagePath(pool.name, pool.namespace, name)


def _adopt(
    pool: Pool, deletions: list[journal.Entry], trashed: list[TrashedImage]
) -> list[journal.Entry]:
    """Record deletions of our images that others have moved to the trash.

    Glance does that with a snapshot that disks were booted from, and never
    frees it. A snapshot that is being detached is freed after that. An
    operator may do that with a base.

    :param deletions: those that are recorded
    :returns: the new ones
    """
    known = {
        entry.image_id for entry in (*deletions, *journal.detachments(pool))
    }
    return [
        _adopt_one(pool, image)
        for image in trashed
        if _is_adopted(image.name) and image.image_id not in known
    ]


def _is_adopted(name: str) -> bool:
    return names.is_snapshot(name) or names.is_base(name)


def _adopt_one(pool: Pool, image: TrashedImage) -> journal.Entry:
    return journal.begin_deletion(
        pool, image.name, image.image_id, own_snaps(image.name)
    )
