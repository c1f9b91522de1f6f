# SPDX-License-Identifier: Apache-2.0

"""Flow: free an image's name at once, by moving the image to the trash.

Its space is freed later by :mod:`.purge`, on this host or another one. Until
then the image has an entry in the pool's journal, so that nothing is forgotten
if a process dies at any point.
"""

import contextlib

import tenacity

from nova_rbd_backend import errors, names, threads
from nova_rbd_backend.ceph.holders import Client
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage import fencing, journal
from nova_rbd_backend.storage.images import retention

# nova-resize is Nova's own (libvirt/driver.py); the rest are this backend's.
OWN_SNAPS = ("nova-resize", "nova-rbd-*")
BUSY_LIMIT_SECONDS = 60.0
_FIRST_WAIT_SECONDS = 0.02
_BUSY_WAIT_SECONDS = 1.0


def own_snaps(name: str) -> tuple[str, ...]:
    """Return the snaps that are removed together with an image or a draft.

    A base has the snap that disks are cloned from. A snapshot has, beside a
    disk's snaps, the one that Glance publishes.

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
    image_id: str | None = None,
) -> None:
    """Free one image's name, whole or half made, if it exists.

    Fences dead clients of the image first. Blocks.

    :param retention_seconds: how long the trash must keep the image
    :param spare_living: refuse if a client that may be alive has it open
    :param image_id: of the image that the caller has looked at: an image that
        has got the name since then stays; None: the image that has it now
    :raises DiskBusy: after busy_limit_seconds such a client still has it open,
        or a client does not release its lock
    """
    image_id = image_id or pool.directory.listed_id(name)
    if image_id is None:
        pool.remove_unlisted(name)
        return
    held = fencing.fence(pool, {name: image_id})
    discard_fenced(
        pool,
        name,
        image_id,
        retention_seconds,
        busy_limit_seconds,
        spare_living=spare_living and name in held,
    )


def discard_fenced(
    pool: Pool,
    name: str,
    image_id: str,
    retention_seconds: int,
    busy_limit_seconds: float,
    spare_living: bool,
) -> None:
    """Do the same for an image whose dead clients have been fenced."""
    if names.is_draft(name):
        # librbd would move it to the trash although its maker publishes it at
        # the same moment. A purge would then free a disk.
        taken = pool.directory.take_away(name)
        if taken is None:
            return
        name = taken

    def move() -> None:
        # librbd moves an image that is open, and its client writes on.
        if spare_living and fencing.fence(pool, {name: image_id}):
            raise errors.DiskBusy
        delay = retention.delay_seconds(pool, retention_seconds)
        _move(pool, name, delay, image_id)

    entry = journal.begin_deletion(pool, name, image_id, own_snaps(name))
    try:
        _retrying(busy_limit_seconds)(move)
    except errors.ImageNotFound:
        if pool.trash.get(image_id) is None:
            # It stays a disk, or another process has freed it.
            journal.end(pool, entry)
            if pool.directory.listed_id(name) == image_id:
                raise _no_trash(pool, name) from None
            return
    except errors.DiskBusy as error:
        # The call may have been cut off after it had moved the image.
        if pool.trash.get(image_id) is None:
            # It stays a disk.
            journal.end(pool, entry)
        raise _refusal(pool, name, image_id, busy_limit_seconds) from error
    # A purge whose clock is ahead, or that found the entry of an older
    # attempt, may have taken the image for a disk, and ended the entry.
    journal.renew_deletion(pool, entry)


def _move(pool: Pool, name: str, delay_seconds: int, image_id: str) -> None:
    try:
        # Another image may have got the name while we waited.
        pool.trash.move(name, delay_seconds, image_id)
    except (errors.Conflict, errors.ImageNotFound):
        # Or while librbd waited.
        pool.restore_id(name)
        raise


def _retrying(limit_seconds: float) -> tenacity.Retrying:
    return tenacity.Retrying(
        # Conflict: a purge frees the image, which another process has moved
        # meanwhile. The next try finds no image of that name.
        retry=tenacity.retry_if_exception_type(
            (errors.DiskBusy, errors.Conflict)
        ),
        stop=tenacity.stop_after_delay(limit_seconds),
        # The client of a guest that was just destroyed is gone in some
        # milliseconds.
        wait=tenacity.wait_exponential(
            _FIRST_WAIT_SECONDS, _BUSY_WAIT_SECONDS
        ),
        sleep=threads.native_sleep,
        reraise=True,
    )


def _no_trash(pool: Pool, name: str) -> errors.NoSpace:
    """Return the error for an image that cannot be moved to the trash.

    librbd reports "no such image" if there is no trash, and no room for it
    (16.2.15). The image is not removed instead: it may have to be kept.
    """
    return errors.NoSpace(
        "the pool seems to be full: it has no trash yet, and no room to "
        "create one",
        operation="delete",
        pool=str(pool),
        image=name,
    )


def _refusal(
    pool: Pool, name: str, image_id: str, limit_seconds: float
) -> errors.DiskBusy:
    """Return the error that names the clients in the way."""
    found: tuple[Client, ...] = ()
    with contextlib.suppress(errors.StorageError):
        found = fencing.guests(pool, image_id)
    who = ", ".join(f"client.{client.client_id}" for client in found)
    return errors.DiskBusy(
        f"{who or 'in use'}, still after {limit_seconds:g} s",
        watchers=[client.address for client in found],
        operation="delete",
        pool=str(pool),
        image=name,
    )
