# SPDX-License-Identifier: Apache-2.0

"""Flow: move bases that nothing hangs on to the trash, by their age."""

import contextlib
import dataclasses
import time

from nova_rbd_backend import errors, metadata, names
from nova_rbd_backend.storage import base_cache, journal, lease, trash
from nova_rbd_backend.storage.cluster import once_more
from nova_rbd_backend.storage.pool import Pool

# Named apart from every base.
_TURN = "ageing"
# None of the others will be reached.
_NO_CLUSTER = (
    errors.ClusterUnreachable,
    errors.ConnectionLost,
    errors.OperationTimedOut,
)


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
    if not lease.take_for(pool, _TURN, period_seconds):
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
                pool.set_metadata(
                    image_id, {metadata.LAST_USED: base_cache.now()}
                )
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
            pool.set_metadata(image_id, {metadata.LAST_USED: base_cache.now()})


def _undo_abandoned(pool: Pool) -> tuple[str, ...]:
    """Undo what is left of a making that nobody has the lease of."""
    undone = []
    for entry in journal.creations(pool, names.BASE_PREFIX):
        # One that is busy is left to the next period.
        with contextlib.suppress(errors.ImageNotFound, errors.DiskBusy):
            making = base_cache.begin(pool, entry.image)
            if making is not None:
                base_cache.give_up(making)
                undone.append(entry.draft)
    return tuple(undone)
