# SPDX-License-Identifier: Apache-2.0

"""Flow: make a base once in a pool, for all hosts.

A base is an image with a snap that disks are cloned from. A lease keeps two
hosts from copying the same image. When its holder dies, the lease ends, and
another host begins anew. A host that finds the name taken discards its own
draft, so that a lease which was lost without notice costs only time.
"""

import contextlib
import dataclasses
import time
from collections.abc import Mapping

from nova_rbd_backend import errors, metadata, names
from nova_rbd_backend.ceph import lease, luks, transfer
from nova_rbd_backend.ceph.cluster import once_more
from nova_rbd_backend.ceph.incoming import Incoming
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.images.draft import (
    Draft,
    Packed,
    draft,
    free_name,
    make_from_file,
    make_from_incoming,
    settle_attempts,
)

SNAP = "base"

# Errors of a process that another one took for dead: its draft was removed, or
# it was put on the blocklist.
_TAKEN_FOR_DEAD = (
    errors.ConnectionLost,
    errors.ImageExists,
    errors.ImageNotFound,
    errors.TakenOver,
)


@dataclasses.dataclass(frozen=True)
class BaseAttempt:
    """A base between begin and finish."""

    name: str
    right: lease.Lease  # to be the only process that makes it
    done: contextlib.ExitStack  # closed when the attempt ends

    def require_right(self) -> None:
        """:raises TakenOver: another process has the right now"""
        if self.right.lost:
            raise errors.TakenOver(
                "another process has the right to make it now",
                operation="make a base",
                image=self.name,
            )


@dataclasses.dataclass(frozen=True)
class MadeBase:
    name: str
    size_bytes: int  # of the virtual disk
    bytes_written: int
    seconds: float


@once_more
def size_bytes(pool: Pool, name: str) -> int | None:
    """Return the size of a base's virtual disk; None: no such base."""
    try:
        return pool.snap_size_bytes(name, SNAP)
    except (errors.ImageNotFound, errors.SnapNotFound):
        return None


def snap(pool: Pool, name: str) -> names.SnapPath:
    """Return the snap of a base that disks are cloned from."""
    return names.SnapPath(pool.name, pool.namespace, name, SNAP)


@once_more
def begin(pool: Pool, name: str) -> BaseAttempt | None:
    """Begin to make a base. Does not wait.

    :returns: None if another process makes it, or has made it meanwhile
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
        # As we have the lease, no living process works on these attempts.
        settle_attempts(pool, name)
        if size_bytes(pool, name) is not None:
            return None
        free_name(pool, name)
        return BaseAttempt(name, taken, undo.pop_all())


def finish(
    pool: Pool,
    attempt: BaseAttempt,
    source: str | Incoming | names.SnapPath,
    facts: Mapping[str, str],
    progress: transfer.Progress | None = None,
    workers: int = transfer.WORKERS,
    packed: Packed | None = None,
) -> MadeBase:
    """Make the base from a local file, or from bytes that come. Takes long.

    Or make it a clone of a snap, with room for what encrypted disks keep
    before their data, which takes a moment.

    Does nothing if another process has made it already.

    :param source: the path of the file, the bytes of a raw one, or the snap
    :param facts: metadata of the base
    :param packed: what the file is; None: raw
    :raises UnreadableFile: a file that is not raw is damaged
    :raises TakenOver: another process took us for dead and makes it now
    """
    started = time.monotonic()

    def checked_progress(done_bytes: int) -> None:
        attempt.require_right()
        if progress is not None:
            progress(done_bytes)

    with attempt.done:
        try:
            with draft(pool, attempt.name) as begun:
                if isinstance(source, Incoming):
                    written = make_from_incoming(
                        *(pool, begun.name, source, checked_progress, workers)
                    )
                elif isinstance(source, names.SnapPath):
                    written = 0
                    facts = {**facts, **_make_roomy(pool, begun.name, source)}
                else:
                    written = make_from_file(
                        *(pool, begun.name, source, None),
                        *(checked_progress, workers, packed),
                    )
                _complete(pool, begun, facts)
        except _TAKEN_FOR_DEAD as error:
            written = 0
            if size_bytes(pool, attempt.name) is None:
                raise errors.TakenOver(
                    "the draft that this host made is gone",
                    operation="make a base",
                    pool=str(pool),
                    image=attempt.name,
                ) from error
        found = size_bytes(pool, attempt.name)
    return MadeBase(
        attempt.name, found or 0, written, time.monotonic() - started
    )


def _make_roomy(pool: Pool, name: str, snap: names.SnapPath) -> dict[str, str]:
    """Make a longer clone, so that librbd shows disks all the parent's bytes.

    librbd leaves out what is beyond the parent's end. An encrypted disk has
    the parent's bytes behind its own header. Returns metadata.
    """
    parent_pool = pool.beside(snap.pool, snap.namespace)
    pool.clone(parent_pool, snap.image, snap.snap, name)
    with pool.open(name, read_only=False) as image:
        room_bytes = luks.data_offset(image)
        image.resize(image.size_bytes() + room_bytes)
    return {metadata.ROOM: str(room_bytes)}


def _complete(pool: Pool, begun: Draft, facts: Mapping[str, str]) -> None:
    with pool.open(begun.name, read_only=False) as image:
        image.create_snap(SNAP)
        # Clients that make clones of the old format need it.
        image.protect_snap(SNAP)
        begun.image_id = image.image_id
    begun.set_metadata({**facts, metadata.LAST_USED: now()})


def now() -> str:
    """Return the time for metadata.LAST_USED."""
    return str(int(time.time()))


def give_up(attempt: BaseAttempt) -> None:
    """Let another process make the base, if the attempt has not ended."""
    attempt.done.close()
