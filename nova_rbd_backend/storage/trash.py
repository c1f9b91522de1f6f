# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""Flow: delete an instance's disks, and give their space back.

Deleting frees the names at once, by moving the images to the trash; what
they hold is freed later by ``purge``, on this host or any other: each
image has an entry in the pool's journal until it is gone, so that a
process may die at any point and nothing is forgotten.
"""

import contextlib
import dataclasses
import datetime
import fnmatch
import time
from collections.abc import Callable

import tenacity

from nova_rbd_backend import errors, names
from nova_rbd_backend.storage import journal, offload
from nova_rbd_backend.storage.cluster import once_more
from nova_rbd_backend.storage.pool import Pool

# nova-resize is Nova's own (libvirt/driver.py); the rest are this backend's.
OWN_SNAPS = ("nova-resize", "nova-rbd-*")
BUSY_LIMIT_SECONDS = 60.0
_BUSY_WAIT_SECONDS = 1.0
# An import of terabytes takes hours. What takes longer is reported.
_LONGEST_CREATION_SECONDS = 24 * 3600.0
# No fault of one image: the others would fare the same now.
_UNREACHED = (
    errors.ClusterUnreachable,
    errors.ConnectionLost,
    errors.OperationTimedOut,
)
# Longer than freeing the largest image takes: its claim is not renewed.
_CLAIM_SECONDS = 2 * 3600.0


@dataclasses.dataclass(frozen=True)
class DeleteReport:
    """:ivar deleted: names that are free now
    :ivar undone: names of half-made images among them
    """

    deleted: tuple[str, ...]
    undone: tuple[str, ...]
    seconds: float


@dataclasses.dataclass(frozen=True)
class Kept:
    """What could not be freed, and why."""

    image: str
    image_id: str
    reason: str
    age_seconds: float


@dataclasses.dataclass(frozen=True)
class PurgeReport:
    """:ivar waiting: kept until their retention is over, or being freed by
        another host right now
    :ivar stuck: wanted gone but in the way of something: tell it loudly
    :ivar left: not looked at, for a limit was reached
    """

    purged: tuple[str, ...]
    waiting: tuple[Kept, ...]
    stuck: tuple[Kept, ...]
    left: int
    seconds: float


def _any_disk(disk_name: str) -> bool:
    return True


@once_more
def delete_disks(
    pool: Pool,
    instance_uuid: str,
    only: Callable[[str], bool] = _any_disk,
    retention_seconds: int = 0,
    own_snaps: tuple[str, ...] = OWN_SNAPS,
    busy_limit_seconds: float = BUSY_LIMIT_SECONDS,
) -> DeleteReport:
    """Free the names of an instance's disks; not there: done.

    Half-made ones too. The space comes back with ``purge``. Blocks.

    :param only: asked with each image's name whether it goes
    :param retention_seconds: how long the trash must keep them
    :raises DiskBusy: not given up by the client that has its lock, after
        busy_limit_seconds; other disks of the instance are gone by then
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
    for name in pool.names(prefix):
        if not only(names.final_name(name)):
            continue
        try:
            discard(
                pool, name, retention_seconds, own_snaps, busy_limit_seconds
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
    """Free the name of one disk, be it whole or half made; not there: done.

    :raises DiskBusy: see delete_disks
    """
    settle_attempts(pool, name)
    discard(pool, name, retention_seconds)


def settle_attempts(pool: Pool, name: str) -> bool:
    """Finish or undo all attempts to make it; whether one was undone."""
    attempts = journal.creations(pool, f"{name}.")
    undone = [settle(pool, entry) for entry in attempts if entry.image == name]
    return any(undone)


def settle(pool: Pool, entry: journal.Entry) -> bool:
    """Finish or undo one attempt to make an image; whether it was undone."""
    half = pool.listed_id(entry.draft) is not None
    if not half:
        pool.finish_publishing(entry.draft, entry.image)
        # Killed inside rbd_create: an id object that no directory lists.
        half = pool.exists(entry.draft)
    if half:
        discard(pool, entry.draft)
    journal.drop(pool, entry)
    return half


def discard(
    pool: Pool,
    name: str,
    retention_seconds: int = 0,
    own_snaps: tuple[str, ...] = OWN_SNAPS,
    busy_limit_seconds: float = BUSY_LIMIT_SECONDS,
) -> None:
    """Free one image's name, be it whole or half made; not there: done.

    :raises DiskBusy: see delete_disks
    """
    image_id = pool.listed_id(name)
    if image_id is None:
        pool.remove_unlisted(name)
        return
    entry = journal.begin_deletion(pool, name, image_id, own_snaps)
    try:
        _move(pool, name, retention_seconds, busy_limit_seconds)
    except errors.ImageNotFound:
        # Half made: too little of it for the trash, or somebody was first.
        if pool.trash_get(image_id) is None:
            if pool.listed_id(name) == image_id:
                pool.remove(name)
            journal.drop(pool, entry)
    except errors.DiskBusy:
        # It stays what it was, a disk.
        journal.drop(pool, entry)
        raise


def _move(
    pool: Pool, name: str, retention_seconds: int, limit_seconds: float
) -> None:
    attempts = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(errors.DiskBusy),
        stop=tenacity.stop_after_delay(limit_seconds),
        wait=tenacity.wait_fixed(_BUSY_WAIT_SECONDS),
        sleep=offload.native_sleep,
        reraise=True,
    )
    try:
        attempts(pool.trash_move, name, retention_seconds)
    except errors.DiskBusy as error:
        raise errors.DiskBusy(
            f"still after {limit_seconds:g} s",
            watchers=_watchers(pool, name),
            operation="delete",
            pool=str(pool),
            image=name,
        ) from error


def _watchers(pool: Pool, name: str) -> tuple[str, ...]:
    with contextlib.suppress(errors.StorageError), pool.open(name) as disk:
        return disk.watchers()
    return ()


@once_more
def purge(
    pool: Pool, limit_seconds: float = 300.0, max_images: int = 1000
) -> PurgeReport:
    """Give the space of deleted disks back, oldest first.

    Any host's: what died with its host is freed here. Each limit ends the
    run between two images. Long: run it in the background.
    """
    started = time.monotonic()
    run = _Run(pool)
    for entry in journal.creations(pool):
        if journal.is_abandoned(pool, entry):
            run.settle(entry)
        elif entry.age_seconds > _LONGEST_CREATION_SECONDS:
            reason = f"made by {entry.host} since then, as {entry.draft}"
            run.stuck.append(_kept(entry, reason))
    left = 0
    for entry in journal.deletions(pool):
        full = len(run.purged) >= max_images
        if full or time.monotonic() - started > limit_seconds:
            left += 1
        else:
            run.look_at(entry)
    return PurgeReport(
        tuple(run.purged),
        tuple(run.waiting),
        tuple(run.stuck),
        left,
        time.monotonic() - started,
    )


class _Run:
    """One purge of a pool."""

    def __init__(self, pool: Pool):
        self.pool = pool
        self.purged: list[str] = []
        self.waiting: list[Kept] = []
        self.stuck: list[Kept] = []

    def settle(self, entry: journal.Entry) -> None:
        try:
            settle(self.pool, entry)
        except _UNREACHED:
            raise
        except errors.StorageError as error:
            self.stuck.append(_kept(entry, str(error)))

    def look_at(self, entry: journal.Entry) -> None:
        kept = _until(self.pool, entry)
        if kept is not None:
            self.waiting.append(kept)
            return
        claimed = journal.claim(self.pool, entry, _CLAIM_SECONDS)
        if claimed is None:
            host = entry.claim.split("/")[0] or "another process"
            self.waiting.append(_kept(entry, f"being freed by {host}"))
            return
        reason: str | None = "broken off"
        try:
            reason = _free(self.pool, claimed)
        finally:
            if reason is not None:
                # The first error says more; the claim ends by itself.
                with contextlib.suppress(errors.StorageError):
                    journal.give_back(self.pool, claimed)
        if reason is None:
            self.purged.append(entry.image)
        else:
            self.stuck.append(_kept(entry, reason))


def _kept(entry: journal.Entry, reason: str) -> Kept:
    return Kept(entry.image, entry.image_id, reason, entry.age_seconds)


def _until(pool: Pool, entry: journal.Entry) -> Kept | None:
    trashed = pool.trash_get(entry.image_id)
    now = datetime.datetime.now(datetime.UTC)
    if trashed is None or trashed.kept_until <= now:
        return None
    return _kept(entry, f"kept until {trashed.kept_until:%F %T} UTC")


def _free(pool: Pool, entry: journal.Entry) -> str | None:
    """Free one image; the reason why not, or None."""
    try:
        try:
            pool.trash_remove(entry.image_id)
        except errors.HasSnaps:
            reason = _remove_snaps(pool, entry)
            if reason is not None:
                return reason
            pool.trash_remove(entry.image_id)
    except errors.ImageNotFound:
        # Freed already; or an operator has restored it, or it never got
        # into the trash: then it is a disk, and not ours to remove.
        pass
    except errors.MoveUnfinished as error:
        if entry.age_seconds < BUSY_LIMIT_SECONDS:
            return str(error)
        # No process waits for it any more. It is freed by the next run.
        pool.trash_finish_move(entry.image_id, entry.image)
        return "its move to the trash was broken off, and is finished now"
    except _UNREACHED:
        raise
    except errors.DiskBusy as error:
        return _busy_reason(pool, entry) or str(error)
    except errors.StorageError as error:
        return str(error)
    journal.drop(pool, entry)
    return None


def _busy_reason(pool: Pool, entry: journal.Entry) -> str | None:
    with (
        contextlib.suppress(errors.StorageError),
        pool.open(image_id=entry.image_id) as disk,
    ):
        return f"open by {', '.join(disk.watchers()) or 'a client'}"
    return None


def _remove_snaps(pool: Pool, entry: journal.Entry) -> str | None:
    """Remove our snaps; what else holds the image, or None."""
    with pool.open(image_id=entry.image_id, read_only=False) as disk:
        for snap in disk.snaps():
            if snap.user and _is_own(snap.name, entry.own_snaps):
                disk.remove_snap(snap.name)
        left = [snap.name for snap in disk.snaps()]
        if not left:
            return None
        children = [str(child) for child in disk.children()]
    reason = f"has snaps {', '.join(left)}"
    return (
        f"{reason} with clones {', '.join(children)}" if children else reason
    )


def _is_own(snap: str, own_snaps: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(snap, pattern) for pattern in own_snaps)
