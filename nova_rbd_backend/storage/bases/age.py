# SPDX-License-Identifier: Apache-2.0

"""Flow: move bases without clones to the trash, by their age."""

import contextlib
import dataclasses
import time

from nova_rbd_backend import errors, metadata, names
from nova_rbd_backend.ceph import lease
from nova_rbd_backend.ceph.cluster import once_more
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.bases import make as bases
from nova_rbd_backend.storage.images import discard

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
    """What ageing did.

    :ivar in_use: how many bases have clones
    :ivar kept: how many have none, and are not old enough
    :ivar removed: names of the bases that are in the trash now
    :ivar undone: drafts of hosts that died
    :ivar failed: why a base could not be looked at or discarded
    """

    in_use: int
    kept: int
    removed: tuple[str, ...]
    undone: tuple[str, ...]
    failed: tuple[str, ...]


def age(
    pool: Pool, unused_seconds: int | None, period_seconds: int
) -> AgeReport | None:
    """Move bases to the trash that have had no clone for so long.

    A purge frees their space. If a disk is cloned from a base at this moment,
    either the clone comes first, and the base waits in the trash for its last
    clone, or the base is gone, and a new one is made. A base that cannot be
    looked at is left to the next period.

    :param unused_seconds: None: keep all
    :param period_seconds: for how long no other host does the same
    :returns: None: another host ages bases in this period
    """
    # Not @once_more: the second call would find its own lease taken.
    if not lease.take_for(pool, _TURN, period_seconds):
        return None
    return _age(pool, unused_seconds)


@once_more
def _age(pool: Pool, unused_seconds: int | None) -> AgeReport:
    undone = _undo_abandoned(pool)
    lease.remove_dead(pool, names.BASE_PREFIX)
    in_use, kept, removed, failed = 0, 0, [], []
    for name, image_id in pool.directory.ids(names.BASE_PREFIX).items():
        if names.final_name(name) != name:
            continue
        try:
            if pool.headers.has_clones(image_id):
                pool.headers.set_metadata(
                    image_id, {metadata.LAST_USED: bases.now()}
                )
                in_use += 1
            elif _is_old(pool, name, unused_seconds):
                discard.discard(pool, name)
                removed.append(name)
            else:
                kept += 1
        except (errors.ImageNotFound, errors.DiskBusy):
            # It is being discarded, or cloned, at this moment.
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
        # Not made by this backend: its age counts from now on.
        touch(pool, name)
        return False
    return time.time() - int(found) > unused_seconds


@once_more
def touch(pool: Pool, name: str) -> None:
    """Record that a base is of use now. No such base: done."""
    image_id = pool.directory.listed_id(name)
    if image_id is not None:
        with contextlib.suppress(errors.ImageNotFound):
            pool.headers.set_metadata(
                image_id, {metadata.LAST_USED: bases.now()}
            )


def _undo_abandoned(pool: Pool) -> tuple[str, ...]:
    """Undo attempts to make a base whose lease nobody has."""
    undone = []
    for entry in journal.creations(pool, names.BASE_PREFIX):
        # A busy draft is left to the next period.
        with contextlib.suppress(errors.ImageNotFound, errors.DiskBusy):
            attempt = bases.begin(pool, entry.image)
            if attempt is not None:
                bases.give_up(attempt)
                undone.append(entry.draft)
    return tuple(undone)
