# SPDX-License-Identifier: Apache-2.0

"""Flow: list the disks that no instance owns, and move them to the trash.

The caller knows which instances exist. Opens no image.
"""

import contextlib
import dataclasses
import datetime
import enum
from collections.abc import Mapping

from nova_rbd_backend import errors, names
from nova_rbd_backend.ceph.cluster import once_more
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage.images import discard
from nova_rbd_backend.storage.survey import holders, inventory

# If the owner of its lock does not release it, the disk is left alone.
_BUSY_LIMIT_SECONDS = 5.0


class OrphanState(enum.StrEnum):
    """Whether a disk that no instance owns may be moved to the trash."""

    ORPHAN = "orphan"
    YOUNG = "young"  # this disk, or another one of its instance
    IN_USE = "in use"  # this disk, or another one of its instance


@dataclasses.dataclass(frozen=True)
class Content:
    """The images in a pool."""

    #: Whole disks that Nova named: instance -> name -> image id.
    disks: Mapping[str, Mapping[str, str]]
    strangers: int  # images that neither Nova nor this backend named


@dataclasses.dataclass(frozen=True)
class Unowned:
    """A disk that no instance owns."""

    disk: inventory.DiskInfo
    created_at: datetime.datetime | None
    #: When it was last created, written or read; noted once a minute.
    used_at: datetime.datetime | None
    state: OrphanState
    reason: str | None  # why it must not be moved to the trash


def content(pool: Pool) -> Content:
    """Return the images in a pool.

    :raises NotPermitted: the pool may not be read
    """
    disks: dict[str, dict[str, str]] = {}
    strangers = 0
    for name, image_id in pool.directory.ids("").items():
        whose = names.DiskName.parse(name)
        own = names.is_base(name) or names.is_snapshot(name)
        # An operator's own copy, such as UUID_disk.old, is a stranger.
        if whose and names.is_novas(whose.disk.removesuffix(".rescue")):
            disks.setdefault(whose.instance_uuid, {})[name] = image_id
        elif not names.is_draft(name) and not own:
            strangers += 1
    return Content(disks, strangers)


def judge(
    pool: Pool, images: Mapping[str, str], older_than_seconds: float
) -> list[Unowned]:
    """Judge all disks of an instance, which go to the trash together.

    Blocks for 2 s if a client is dead.

    :param images: name -> id
    """
    held = holders.holders_of(pool, images)
    newest = _now(pool) - datetime.timedelta(seconds=older_than_seconds)
    found = []
    for name in sorted(images):
        # A disk may be deleted meanwhile.
        with contextlib.suppress(errors.ImageNotFound):
            disk = inventory.describe(pool, name, images[name])
            own_holders = [each for each in held if each.image == name]
            found.append(_unowned(disk, own_holders, newest))
    return _judged_together(found)


def _now(pool: Pool) -> datetime.datetime:
    # The OSDs note with their own clocks when an image was used.
    with contextlib.suppress(errors.NotSupported):
        return pool.clocks().now()
    return datetime.datetime.now(datetime.UTC)


def _unowned(
    disk: inventory.DiskInfo,
    held: list[holders.Holder],
    newest: datetime.datetime,
) -> Unowned:
    created_at, used_at = disk.pool.headers.times(disk.image_id)
    state, reason = OrphanState.ORPHAN, None
    if used_at is not None and used_at > newest:
        state, reason = OrphanState.YOUNG, "used lately"
    if held:
        state, reason = OrphanState.IN_USE, ", ".join(map(str, held))
    return Unowned(disk, created_at, used_at, state, reason)


def _judged_together(found: list[Unowned]) -> list[Unowned]:
    for state in (OrphanState.IN_USE, OrphanState.YOUNG):
        keeper = next((each for each in found if each.state is state), None)
        if keeper is not None:
            reason = f"{keeper.disk.name} is"
            return [
                dataclasses.replace(each, state=state, reason=reason)
                if each.state is OrphanState.ORPHAN
                else each
                for each in found
            ]
    return found


@once_more
def quarantine(
    pool: Pool, name: str, image_id: str, keep_seconds: int
) -> None:
    """Move a disk to the trash, from where it can be restored by its name.

    The disk is deleted like any other, so that it is purged after
    keep_seconds. Does nothing if it is in the trash already.

    :raises ImageNotFound: it is gone, or another image has its name now
    :raises DiskBusy: a client has it open, or died with it
    """
    facts = {"operation": "quarantine", "pool": str(pool), "image": name}
    if pool.directory.listed_id(name) != image_id:
        if pool.trash.get(image_id) is not None:
            return
        raise errors.ImageNotFound(
            "it is gone, or another image has its name", **facts
        )
    held = holders.holders_of(pool, {name: image_id})
    if held:
        watchers = [each.address for each in held]
        raise errors.DiskBusy("a client holds it", watchers=watchers, **facts)
    discard.discard(
        pool,
        name,
        keep_seconds,
        busy_limit_seconds=_BUSY_LIMIT_SECONDS,
        image_id=image_id,
    )
