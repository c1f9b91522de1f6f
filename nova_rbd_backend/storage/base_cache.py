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

"""Flow: make a base once in a pool, for all hosts, and age it out.

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
# Named apart from every base.
_AGEING = "ageing"
# Whoever does so removes our draft, or puts us on the blocklist.
_TAKEN_FOR_DEAD = (
    errors.ConnectionLost,
    errors.ImageExists,
    errors.ImageNotFound,
    errors.TakenOver,
)
# None of the others will be reached.
_NO_CLUSTER = (
    errors.ClusterUnreachable,
    errors.ConnectionLost,
    errors.OperationTimedOut,
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
    started, written = time.monotonic(), 0

    def tell(done_bytes: int) -> None:
        making.require_right()
        if progress is not None:
            progress(done_bytes)

    with making.done:
        making.require_right()
        entry = journal.begin_creation(pool, making.name)
        try:
            written = provision.import_draft(
                pool, entry.draft, path, None, tell, workers
            )
            image_id = _seal(pool, entry.draft, facts)
            pool.publish(entry.draft, image_id, making.name)
        except BaseException as error:
            # What cannot be undone now stays in the journal.
            with contextlib.suppress(errors.StorageError):
                trash.settle(pool, entry)
            if not isinstance(error, _TAKEN_FOR_DEAD):
                raise
            if size_bytes(pool, making.name) is None:
                raise errors.TakenOver(
                    "what was made of it is gone",
                    operation="make a base",
                    pool=str(pool),
                    image=making.name,
                ) from error
        else:
            journal.drop(pool, entry)
        found = size_bytes(pool, making.name)
    return Made(making.name, found or 0, written, time.monotonic() - started)


def _seal(pool: Pool, draft: str, facts: Mapping[str, str]) -> str:
    with pool.open(draft, read_only=False) as disk:
        disk.create_snap(SNAP)
        # No clone of the old format is made while it is in use.
        disk.protect_snap(SNAP)
        disk.set_metadata({**facts, metadata.LAST_USED: _now()})
        return disk.image_id


def _now() -> str:
    return str(int(time.time()))


def give_up(making: Making) -> None:
    """Let another process make it."""
    making.done.close()


@dataclasses.dataclass(frozen=True)
class AgeReport:
    """:ivar in_use: how many bases have clones
    :ivar kept: have none, and are kept for the time being
    :ivar removed: names of those that are in the trash now
    :ivar undone: drafts of hosts that died
    :ivar failed: why one could not be looked at or removed
    """

    in_use: int
    kept: int
    removed: tuple[str, ...]
    undone: tuple[str, ...]
    failed: tuple[str, ...]


def age(
    pool: Pool, unused_seconds: int | None, period_seconds: int
) -> AgeReport | None:
    """Move bases to the trash that nothing has hung on for so long.

    Their space comes back with ``purge``. Somebody who clones of one at this
    moment either is first, and it then waits in the trash for the last
    clone, or finds it gone and makes a new one.

    One that cannot be looked at is left to the next period.

    :param unused_seconds: None: keep them
    :param period_seconds: for how long no other host does the same
    :returns: None: another host does it in this period
    """
    # Once: a second time it would find its own right taken.
    if not lease.take_for(pool, _AGEING, period_seconds):
        return None
    return _age(pool, unused_seconds)


@once_more
def _age(pool: Pool, unused_seconds: int | None) -> AgeReport:
    undone = _undo_abandoned(pool)
    lease.forget_dead(pool, names.BASE_PREFIX)
    in_use, kept, removed, failed = 0, 0, [], []
    for name, image_id in pool.ids(names.BASE_PREFIX).items():
        if names.final_name(name) != name:
            continue
        try:
            if pool.has_clones(image_id):
                pool.set_metadata(image_id, {metadata.LAST_USED: _now()})
                in_use += 1
            elif _is_old(pool, name, unused_seconds):
                trash.discard(pool, name)
                removed.append(name)
            else:
                kept += 1
        except (errors.ImageNotFound, errors.DiskBusy):
            # It goes already, or is cloned just now.
            continue
        except _NO_CLUSTER:
            raise
        except errors.StorageError as error:
            failed.append(str(error))
    return AgeReport(in_use, kept, tuple(removed), undone, tuple(failed))


def _is_old(pool: Pool, name: str, unused_seconds: int | None) -> bool:
    if unused_seconds is None:
        return False
    with pool.open(name) as disk:
        found = disk.metadata().get(metadata.LAST_USED, "")
    if not found.isdecimal():
        # Somebody else's: it counts from now on.
        touch(pool, name)
        return False
    return time.time() - int(found) > unused_seconds


@once_more
def touch(pool: Pool, name: str) -> None:
    """Remember that a base is of use now; gone: done."""
    image_id = pool.listed_id(name)
    if image_id is not None:
        with contextlib.suppress(errors.ImageNotFound):
            pool.set_metadata(image_id, {metadata.LAST_USED: _now()})


def _undo_abandoned(pool: Pool) -> tuple[str, ...]:
    """Undo what is left of a making that nobody has the lease of."""
    undone = []
    for entry in journal.creations(pool, names.BASE_PREFIX):
        # One that is busy is left to the next period.
        with contextlib.suppress(errors.ImageNotFound, errors.DiskBusy):
            making = begin(pool, entry.image)
            if making is not None:
                give_up(making)
                undone.append(entry.draft)
    return tuple(undone)
