# SPDX-License-Identifier: Apache-2.0

"""Flow: disks of instances that nobody knows, and their way into the trash.

Who is known is asked elsewhere. No image is opened for it.
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

# An owner that does not let go is a reason to leave the disk alone.
_BUSY_LIMIT_SECONDS = 5.0


class OrphanState(enum.StrEnum):
    """May a disk that no instance owns go?"""

    ORPHAN = "orphan"
    YOUNG = "young"  # it, or another disk of its instance
    IN_USE = "in use"  # the same


@dataclasses.dataclass(frozen=True)
class Content:
    """What lies in a pool.

    :ivar disks: instance -> name -> image id; whole ones with Nova's names
    :ivar strangers: how many images have names that are nobody's here
    """

    disks: Mapping[str, Mapping[str, str]]
    strangers: int


@dataclasses.dataclass(frozen=True)
class Unowned:
    """A disk that no instance owns.

    :ivar used_at: the last time that it was made, written or read, which an
        image notes once in a minute
    :ivar reason: why it may not go
    """

    disk: inventory.DiskInfo
    created_at: datetime.datetime | None
    used_at: datetime.datetime | None
    state: OrphanState
    reason: str | None


def content(pool: Pool) -> Content:
    """List a pool.

    :raises NotPermitted: the pool may not be read
    """
    disks: dict[str, dict[str, str]] = {}
    strangers = 0
    for name, image_id in pool.directory.ids("").items():
        whose = names.DiskName.parse(name)
        # An operator's own copy, UUID_disk.old, is not one.
        if whose and names.is_novas(whose.disk.removesuffix(".rescue")):
            disks.setdefault(whose.instance_uuid, {})[name] = image_id
        elif names.final_name(name) == name and not _is_own(name):
            strangers += 1
    return Content(disks, strangers)


def _is_own(name: str) -> bool:
    return names.is_base(name) or names.is_snapshot(name)


def judge(
    pool: Pool, images: Mapping[str, str], older_than_seconds: float
) -> list[Unowned]:
    """Look at all the disks of an instance, which go together or not at all.

    Blocks for 2 s where a client is dead.

    :param images: name -> id
    """
    held = holders.holders_of(pool, images)
    newest = datetime.datetime.now(datetime.UTC) - datetime.timedelta(
        seconds=older_than_seconds
    )
    found = []
    for name in sorted(images):
        # It may go while we look.
        with contextlib.suppress(errors.ImageNotFound):
            disk = inventory.describe(pool, name, images[name])
            mine = [each for each in held if each.image == name]
            found.append(_unowned(disk, mine, newest))
    return _judged_together(found)


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
        keepers = [each for each in found if each.state is state]
        if keepers:
            because = f"{keepers[0].disk.name} is"
            return [
                each
                if each.state is not OrphanState.ORPHAN
                else dataclasses.replace(each, state=state, reason=because)
                for each in found
            ]
    return found


@once_more
def quarantine(
    pool: Pool, name: str, image_id: str, keep_seconds: int
) -> None:
    """Move a disk to the trash, from where it can be restored by its name.

    Deleted as any other, so that it is purged when its time is over. Killed
    half-way: it is a disk still, or in the trash. There already: done.

    :raises ImageNotFound: it is gone, or another has its name now
    :raises DiskBusy: a client has it open, or died with it
    """
    facts = {
        "operation": "quarantine",
        "pool": str(pool),
        "image": name,
    }
    if pool.directory.listed_id(name) != image_id:
        if pool.trash.get(image_id) is not None:
            return
        raise errors.ImageNotFound("it is not what it was", **facts)
    held = holders.holders_of(pool, {name: image_id})
    if held:
        raise errors.DiskBusy(
            "somebody has it",
            watchers=[each.address for each in held],
            **facts,
        )
    discard.discard(
        pool, name, keep_seconds, busy_limit_seconds=_BUSY_LIMIT_SECONDS
    )
