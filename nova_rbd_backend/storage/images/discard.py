# SPDX-License-Identifier: Apache-2.0

"""Flow: free an image's name at once, by moving the image to the trash.

What the image holds is freed later by :mod:`.purge`, on this host or any
other: the image has an entry in the pool's journal until it is gone, so that
a process may die at any point and nothing is forgotten.
"""

import contextlib
import dataclasses

import tenacity

from nova_rbd_backend import errors, names, threads
from nova_rbd_backend.ceph.holders import Client
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage import fencing, journal

# nova-resize is Nova's own (libvirt/driver.py); the rest are this backend's.
OWN_SNAPS = ("nova-resize", "nova-rbd-*")
BUSY_LIMIT_SECONDS = 60.0
_FIRST_WAIT_SECONDS = 0.02
_BUSY_WAIT_SECONDS = 1.0


def own_snaps(name: str) -> tuple[str, ...]:
    """Return which snaps are removed with an image, or with a draft.

    A base's is the snap that disks are cloned of; a snapshot has one more,
    of which Glance has clones made.

    :returns: names, and prefixes with ``*``
    """
    if names.is_base(name):
        return ("base",)
    return (*OWN_SNAPS, "snap") if names.is_snapshot(name) else OWN_SNAPS


def discard(
    pool: Pool,
    name: str,
    retention_seconds: int = 0,
    busy_limit_seconds: float = BUSY_LIMIT_SECONDS,
    spare_living: bool = True,
) -> None:
    """Free one image's name, half made or whole. No such image: done.

    Fences dead clients of the image first. Blocks.

    :param retention_seconds: how long the trash must keep the image
    :param spare_living: refuse while a client has it open that may be alive
    :raises DiskBusy: such a client has it open, or does not release its lock,
        still after busy_limit_seconds
    """
    image_id = pool.directory.listed_id(name)
    held = {} if image_id is None else fencing.fence(pool, {name: image_id})
    discard_fenced(
        pool,
        name,
        retention_seconds,
        busy_limit_seconds,
        spare_living=spare_living and name in held,
    )


def discard_fenced(
    pool: Pool,
    name: str,
    retention_seconds: int,
    busy_limit_seconds: float,
    spare_living: bool,
) -> None:
    """Do the same for an image whose dead clients have been fenced."""
    image_id = pool.directory.listed_id(name)
    if image_id is None:
        pool.remove_unlisted(name)
        return
    entry = journal.begin_deletion(pool, name, image_id, own_snaps(name))
    try:
        move = _Move(pool, name, image_id, retention_seconds, spare_living)
        _repeat(move, busy_limit_seconds)
    except errors.ImageNotFound:
        # Half made: too little of it for the trash; or another process has
        # discarded it.
        if pool.trash.get(image_id) is None:
            if pool.directory.listed_id(name) == image_id:
                _remove(pool, name, image_id)
            journal.end(pool, entry)
            return
    except errors.DiskBusy:
        # It stays a disk.
        journal.end(pool, entry)
        raise
    # A purge whose clock is ahead, or that found the entry of an older
    # attempt, may have taken the image for a disk, and ended the entry.
    journal.renew_deletion(pool, entry)


def _remove(pool: Pool, name: str, image_id: str) -> None:
    pool.remove(name)
    if pool.directory.listed_id(name) == image_id:
        # librbd reports "no such image" for an image that it can neither move
        # to the trash nor remove (16.2.15).
        raise errors.NoSpace(
            "is the pool full? It never had a trash, and has no room for one",
            operation="delete",
            pool=str(pool),
            image=name,
        )


@dataclasses.dataclass(frozen=True)
class _Move:
    """One attempt to move an image to the trash."""

    pool: Pool
    name: str
    image_id: str
    retention_seconds: int
    spare_living: bool

    def __call__(self) -> None:
        image = {self.name: self.image_id}
        # librbd moves an image that is open, and its client writes on.
        if self.spare_living and fencing.fence(self.pool, image):
            raise errors.DiskBusy
        self.pool.trash.move(self.name, self.retention_seconds)

    def refusal(self, limit_seconds: float) -> errors.DiskBusy:
        """Return the error that names the clients in the way."""
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
        # A guest that was just destroyed is gone in some milliseconds.
        wait=tenacity.wait_exponential(
            _FIRST_WAIT_SECONDS, _BUSY_WAIT_SECONDS
        ),
        sleep=threads.native_sleep,
        reraise=True,
    )
    try:
        attempts(move)
    except errors.DiskBusy as error:
        raise move.refusal(limit_seconds) from error
