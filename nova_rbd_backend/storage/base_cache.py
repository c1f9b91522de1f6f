# SPDX-License-Identifier: Apache-2.0

"""Flow: make a base once in a pool, for all hosts.

A base is an image with a snap that disks are cloned from. It is made under a
draft's name and gets its own when it is whole, so that no half base can be
cloned. A lease keeps two hosts from copying the same; when its holder dies it
ends, and the next one begins anew. Whoever comes second to the name gives his
own up, so that a lease that was lost without notice costs time only.
"""

import contextlib
import dataclasses
import time
from collections.abc import Mapping

from nova_rbd_backend import errors, metadata, names
from nova_rbd_backend.storage import (
    journal,
    lease,
    provision,
    transfer,
    trash,
)
from nova_rbd_backend.storage.cluster import once_more
from nova_rbd_backend.storage.pool import Pool

SNAP = "base"
# Whoever does so removes our draft, or puts us on the blocklist.
_TAKEN_FOR_DEAD = (
    errors.ConnectionLost,
    errors.ImageExists,
    errors.ImageNotFound,
    errors.TakenOver,
)


@dataclasses.dataclass(frozen=True)
class Making:
    """A base between begin and finish.

    :ivar right: to be the one that makes it
    :ivar done: to be closed when it is finished or given up
    """

    name: str
    right: lease.Lease
    done: contextlib.ExitStack

    def require_right(self) -> None:
        """:raises TakenOver: another process has it"""
        if self.right.lost:
            raise errors.TakenOver(
                "another process has the right to make it now",
                operation="make a base",
                image=self.name,
            )


@dataclasses.dataclass(frozen=True)
class Made:
    """:ivar size_bytes: of the virtual disk"""

    name: str
    size_bytes: int
    bytes_written: int
    seconds: float


@once_more
def size_bytes(pool: Pool, name: str) -> int | None:
    """Bytes of the virtual disk of a base; None: there is no such base."""
    try:
        return pool.snap_size_bytes(name, SNAP)
    except (errors.ImageNotFound, errors.SnapNotFound):
        return None


def snap(pool: Pool, name: str) -> names.SnapPath:
    """What disks are cloned from."""
    return names.SnapPath(pool.name, pool.namespace, name, SNAP)


@once_more
def begin(pool: Pool, name: str) -> Making | None:
    """Take on the making of a base. Does not wait.

    :returns: None: another process makes it, or it is there meanwhile
    """
    with contextlib.ExitStack() as undo:
        taken = lease.take(pool, name)
        if taken is None:
            return None
        undo.callback(taken.end)
        try:
            undo.enter_context(journal.sole_maker(pool, name))
        except errors.BeingCreated:
            return None
        # With the lease it is known that nobody is at them any more.
        trash.settle_attempts(pool, name)
        if size_bytes(pool, name) is not None:
            return None
        provision.free_name(pool, name)
        return Making(name, taken, undo.pop_all())


def finish(
    pool: Pool,
    making: Making,
    path: str,
    facts: Mapping[str, str],
    progress: transfer.Progress | None = None,
    workers: int = transfer.WORKERS,
) -> Made:
    """Make the base of a local raw file; long. Somebody was first: done.

    :param facts: metadata of the base
    :raises TakenOver: another process took us for dead and is at it
    """
    started = time.monotonic()
    with making.done:
        try:
            making.require_right()
            written = _make(pool, making, path, facts, progress, workers)
        except _TAKEN_FOR_DEAD as error:
            if size_bytes(pool, making.name) is None:
                raise errors.TakenOver(
                    "what was made of it is gone",
                    operation="make a base",
                    pool=str(pool),
                    image=making.name,
                ) from error
            written = 0
        found = size_bytes(pool, making.name)
    return Made(making.name, found or 0, written, time.monotonic() - started)


def _make(
    pool: Pool,
    making: Making,
    path: str,
    facts: Mapping[str, str],
    progress: transfer.Progress | None,
    workers: int,
) -> int:
    """Make it under a draft's name, whole, and name it; bytes written."""

    def tell(done_bytes: int) -> None:
        making.require_right()
        if progress is not None:
            progress(done_bytes)

    entry = journal.begin_creation(pool, making.name)
    try:
        written = provision.import_draft(
            pool, entry.draft, path, None, tell, workers
        )
        image_id = _seal(pool, entry.draft, facts)
        pool.publish(entry.draft, image_id, making.name)
    except BaseException:
        # What cannot be undone now stays in the journal.
        with contextlib.suppress(errors.StorageError):
            trash.settle(pool, entry)
        raise
    journal.drop(pool, entry)
    return written


def _seal(pool: Pool, draft: str, facts: Mapping[str, str]) -> str:
    with pool.open(draft, read_only=False) as disk:
        disk.create_snap(SNAP)
        # No clone of the old format is made while it is in use.
        disk.protect_snap(SNAP)
        disk.set_metadata({**facts, metadata.LAST_USED: now()})
        return disk.image_id


def now() -> str:
    """The date for metadata.LAST_USED."""
    return str(int(time.time()))


def give_up(making: Making) -> None:
    """Let another process make it."""
    making.done.close()
