# SPDX-License-Identifier: Apache-2.0

"""Flow: delete an instance's disks.

Deleting frees the names at once, by moving the images to the trash; what
they hold is freed later by :mod:`nova_rbd_backend.storage.purge`, on this
host or any other: each image has an entry in the pool's journal until it is
gone, so that a process may die at any point and nothing is forgotten.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable

import tenacity

from nova_rbd_backend import errors, names
from nova_rbd_backend.storage import fencing, journal, offload, sources
from nova_rbd_backend.storage.cluster import once_more
from nova_rbd_backend.storage.disk import Client
from nova_rbd_backend.storage.pool import Pool

# nova-resize is Nova's own (libvirt/driver.py); the rest are this backend's.
OWN_SNAPS = ("nova-resize", "nova-rbd-*")
BUSY_LIMIT_SECONDS = 60.0
_FIRST_WAIT_SECONDS = 0.02
_BUSY_WAIT_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class DeleteReport:
    """:ivar deleted: names that are free now
    :ivar undone: names of half-made images among them
    """

    deleted: tuple[str, ...]
    undone: tuple[str, ...]
    seconds: float


def own_snaps(name: str) -> tuple[str, ...]:
    """Which snaps of an image, or of a draft, go with it, and no others.

    Of a base the one that disks are cloned of; of a snapshot also the one
    that Glance has clones made of.

    :returns: names, and prefixes with ``*``
    """
    if names.is_base(name):
        return ("base",)
    return (*OWN_SNAPS, "snap") if names.is_snapshot(name) else OWN_SNAPS


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
    """Free the names of an instance's disks; not there: done.

    Half-made ones too. The space comes back with ``purge``. Blocks.

    :param only: asked with each image's name whether it goes
    :param retention_seconds: how long the trash must keep them
    :raises DiskBusy: a living client has it open, or does not give its lock
        up, after busy_limit_seconds: a guest would write on until its disk is
        purged; other disks of the instance are gone by then
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
        for name, image_id in pool.ids(prefix).items()
        if only(names.final_name(name))
    }
    # All at once: for each dead client it takes its time.
    held = fencing.fence(pool, found)
    for name in found:
        try:
            _discard(
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
        # Also of a maker that is alive: it has been given up.
        discard(pool, entry.draft, spare_living=False)
    if entry.source is not None and pool.listed_id(entry.image) is None:
        sources.remove(pool, entry.source)
    journal.drop(pool, entry)
    return half


def discard(
    pool: Pool,
    name: str,
    retention_seconds: int = 0,
    busy_limit_seconds: float = BUSY_LIMIT_SECONDS,
    spare_living: bool = True,
) -> None:
    """Free one image's name, be it whole or half made; not there: done.

    :raises DiskBusy: see delete_disks
    """
    image_id = pool.listed_id(name)
    held = {} if image_id is None else fencing.fence(pool, {name: image_id})
    _discard(
        pool,
        name,
        retention_seconds,
        busy_limit_seconds,
        spare_living=spare_living and name in held,
    )


def _discard(
    pool: Pool,
    name: str,
    retention_seconds: int,
    busy_limit_seconds: float,
    spare_living: bool,
) -> None:
    image_id = pool.listed_id(name)
    if image_id is None:
        pool.remove_unlisted(name)
        return
    entry = journal.begin_deletion(pool, name, image_id, own_snaps(name))
    try:
        attempt = _Move(pool, name, image_id, retention_seconds, spare_living)
        _repeat(attempt, busy_limit_seconds)
    except errors.ImageNotFound:
        # Half made: too little of it for the trash, or somebody was first.
        if pool.trash_get(image_id) is None:
            if pool.listed_id(name) == image_id:
                _remove(pool, name, image_id)
            journal.drop(pool, entry)
            return
    except errors.DiskBusy:
        # It stays what it was, a disk.
        journal.drop(pool, entry)
        raise
    # A purge whose clock is ahead, or that found the entry of an older
    # attempt, took the image for one that stays a disk, and dropped it.
    journal.renew_deletion(pool, entry)


def _remove(pool: Pool, name: str, image_id: str) -> None:
    pool.remove(name)
    if pool.listed_id(name) == image_id:
        # librbd says that there is no such image, of one that it can move to
        # the trash no more than remove (16.2.15).
        raise errors.NoSpace(
            "is the pool full? It never had a trash, and has no room for one",
            operation="delete",
            pool=str(pool),
            image=name,
        )


@dataclasses.dataclass(frozen=True)
class _Move:
    """One attempt to move an image to the trash.

    :ivar spare_living: not while a client has it open that may be alive
    """

    pool: Pool
    name: str
    image_id: str
    retention_seconds: int
    spare_living: bool

    def __call__(self) -> None:
        image = {self.name: self.image_id}
        # librbd moves it all the same, and its owner writes on.
        if self.spare_living and fencing.fence(self.pool, image):
            raise errors.DiskBusy
        self.pool.trash_move(self.name, self.retention_seconds)

    def refusal(self, limit_seconds: float) -> errors.DiskBusy:
        """Say who is in the way."""
        found: tuple[Client, ...] = ()
        with contextlib.suppress(errors.StorageError):
            found = fencing.guests(self.pool, self.image_id)
        who = ", ".join(f"client.{client.client_id}" for client in found)
        return errors.DiskBusy(
            f"{who or 'in use'}, still after {limit_seconds:g} s",
            watchers=[client.address for client in found],
            operation="delete",
            pool=str(self.pool),
            image=self.name,
        )


def _repeat(move: _Move, limit_seconds: float) -> None:
    attempts = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(errors.DiskBusy),
        stop=tenacity.stop_after_delay(limit_seconds),
        # A guest that was just destroyed is gone in some ms.
        wait=tenacity.wait_exponential(
            _FIRST_WAIT_SECONDS, _BUSY_WAIT_SECONDS
        ),
        sleep=offload.native_sleep,
        reraise=True,
    )
    try:
        attempts(move)
    except errors.DiskBusy as error:
        raise move.refusal(limit_seconds) from error
