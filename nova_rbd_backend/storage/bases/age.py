# SPDX-License-Identifier: Apache-2.0

"""Flow: move bases to the trash that have had no clones for some time."""

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

# The lease of the host that ages the bases; no base has this name.
_TURN = "ageing"


@dataclasses.dataclass(frozen=True)
class AgeReport:
    """What ageing did, as numbers and names of bases."""

    in_use: int  # with clones
    kept: int  # without clones, but not old enough
    removed: tuple[str, ...]  # in the trash now
    undone: tuple[str, ...]  # drafts whose hosts died
    failed: tuple[str, ...]  # why a base could not be read or discarded


def age(
    pool: Pool, unused_seconds: int | None, period_seconds: int
) -> AgeReport | None:
    """Move bases to the trash that have had no clones for unused_seconds.

    A purge frees their space. If a disk is cloned from a base at this moment,
    either the clone comes first, and the base waits in the trash for its last
    clone, or the base is gone, and a new one is made. A base that cannot be
    read is left to the next period.

    :param unused_seconds: None: keep all
    :param period_seconds: for how long no other host ages this pool's bases
    :returns: None if another host ages the bases in this period
    """
    # Not @once_more: the second call would find the lease of the first.
    with lease.turn(pool, _TURN, period_seconds) as turn:
        return None if turn is None else _age(pool, unused_seconds)


@once_more
def _age(pool: Pool, unused_seconds: int | None) -> AgeReport:
    undone = _undo_abandoned(pool)
    lease.remove_dead(pool, names.BASE_PREFIX)
    in_use, kept, removed, failed = 0, 0, [], []
    for name, image_id in pool.directory.ids(names.BASE_PREFIX).items():
        if names.is_draft(name):
            continue
        try:
            if pool.headers.has_clones(image_id):
                _record_use(pool, image_id)
                in_use += 1
            elif _is_old(pool, image_id, unused_seconds):
                discard.discard(pool, name, image_id=image_id)
                removed.append(name)
            else:
                kept += 1
        except (errors.ImageNotFound, errors.DiskBusy):
            # It is being discarded or cloned at this moment.
            continue
        except errors.UNREACHED:
            raise
        except errors.StorageError as error:
            failed.append(str(error))
    return AgeReport(in_use, kept, tuple(removed), undone, tuple(failed))


def _is_old(pool: Pool, image_id: str, unused_seconds: int | None) -> bool:
    if unused_seconds is None:
        return False
    found = pool.headers.metadata(image_id).get(metadata.LAST_USED, "")
    if not found.isdecimal():
        # Not made by this backend: its age counts from now on.
        _record_use(pool, image_id)
        return False
    return time.time() - int(found) > unused_seconds


@once_more
def touch(pool: Pool, name: str) -> None:
    """Record that a base is in use now, if it exists."""
    image_id = pool.directory.listed_id(name)
    if image_id is not None:
        with contextlib.suppress(errors.ImageNotFound):
            _record_use(pool, image_id)


def _record_use(pool: Pool, image_id: str) -> None:
    # Without librbd, also if the base has a journal: librbd would need the
    # base's lock. A copy that rbd-mirror makes may age sooner for that.
    pool.headers.set_metadata(image_id, {metadata.LAST_USED: bases.now()})


def _undo_abandoned(pool: Pool) -> tuple[str, ...]:
    """Undo the attempts to make a base whose lease has ended."""
    undone = []
    for entry in journal.creations(pool, names.BASE_PREFIX):
        # A busy draft is left to the next period.
        with contextlib.suppress(errors.ImageNotFound, errors.DiskBusy):
            attempt = bases.begin(pool, entry.image)
            if attempt is not None:
                bases.give_up(attempt)
                undone.append(entry.draft)
    return tuple(undone)
