# SPDX-License-Identifier: Apache-2.0

"""What is under construction or deletion in a pool, for whoever comes next.

One RADOS object per pool; its omap has an entry ``create_<draft>`` while an
image is being made under its draft's name, ``delete_<image id>`` until the
space of a deleted image is free, and ``detach_<image id>`` while a snapshot
shares data with the disk it is of. The entries are a record of what to look
for after a process died, not of what is whole: an image that has its own name
is.
"""

import contextlib
import dataclasses
import enum
import json
import os
import time
from collections.abc import Iterator
from typing import Any

from nova_rbd_backend import errors, names
from nova_rbd_backend.storage import offload, processes
from nova_rbd_backend.storage.cluster import once_more
from nova_rbd_backend.storage.pool import Pool

OBJECT = "nova_rbd_journal"


@dataclasses.dataclass(frozen=True)
class Source:
    """A snap made for a snapshot; by id, since its disk may be renamed."""

    pool: str
    image_id: str
    snap: str


class Offer(enum.StrEnum):
    """Whether Glance has a snapshot's location."""

    NOT_MADE = "not made"
    UNDER_WAY = "under way"  # asked, and no answer seen yet
    ACCEPTED = "accepted"


@dataclasses.dataclass(frozen=True)
class Entry:
    """:ivar image: the name that is made, or was deleted
    :ivar draft: of what is made: its name until it is whole
    :ivar image_id: of what is deleted or detached
    :ivar own_snaps: names, and prefixes with ``*``, that deletion removes
    :ivar host, pid, process: whose entry it is
    :ivar source: of a snapshot: the snap it is made of, which goes when
        the snapshot is detached
    :ivar offer: of a snapshot: what Glance knows of it
    :ivar claim: who is at it now, as ``host/pid/process``
    :ivar claimed_until: when the claim ends, if its process does not
    :ivar stored: the entry as the pool has it, for compare-and-swap; it may
        have fields of a later version
    """

    operation: str
    image: str
    draft: str = ""
    image_id: str = ""
    own_snaps: tuple[str, ...] = ()
    source: "Source | None" = None
    offer: "Offer | None" = None
    host: str = ""
    pid: int = 0
    process: str = ""
    begun_at: float = 0.0
    claim: str = ""
    claimed_until: float = 0.0
    stored: str = dataclasses.field(default="", compare=False, repr=False)

    @property
    def key(self) -> str:
        return f"{self.operation}_{self.draft or self.image_id}"

    @property
    def writer(self) -> processes.Process:
        return processes.Process(self.host, self.pid, self.process)

    @property
    def age_seconds(self) -> float:
        return max(0.0, time.time() - self.begun_at)

    def encoded(self) -> "Entry":
        """The same, with ``stored`` set."""
        facts = dataclasses.asdict(self)
        del facts["stored"]
        text = json.dumps(facts, sort_keys=True)
        return dataclasses.replace(self, stored=text)

    @classmethod
    def decoded(cls, value: bytes) -> "Entry":
        """Read an entry; what a later version added is passed over."""
        known = {field.name for field in dataclasses.fields(cls)}
        found: dict[str, Any] = {
            key: part
            for key, part in json.loads(value).items()
            if key in known
        }
        found["own_snaps"] = tuple(found.get("own_snaps", ()))
        if source := found.get("source"):
            found["source"] = Source(
                source["pool"], source["image_id"], source["snap"]
            )
        if offer := found.get("offer"):
            # One that is not known here is looked into before anything goes.
            known_offer = offer in list(Offer)
            found["offer"] = Offer(offer) if known_offer else Offer.UNDER_WAY
        found["stored"] = value.decode()
        return cls(**found)


def _stamped(operation: str, image: str, **facts: Any) -> Entry:
    return Entry(
        operation,
        image,
        **dataclasses.asdict(processes.this()),
        begun_at=time.time(),
        **facts,
    ).encoded()


# What this process is making, so that a second thread is told so.
_making: set[tuple[int, str, str]] = set()
_making_lock = offload.original_threading().Lock()


def _after_fork_in_child() -> None:
    global _making_lock
    _making_lock = offload.original_threading().Lock()
    _making.clear()
    _claimed_here.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)


@contextlib.contextmanager
def sole_maker(pool: Pool, name: str) -> Iterator[None]:
    """Keep other threads of this process from making the same image.

    :raises BeingCreated: one of them does
    """
    slot = (id(pool.cluster), str(pool), name)
    with _making_lock:
        if slot in _making:
            raise errors.BeingCreated(
                operation="create", pool=str(pool), image=name
            )
        _making.add(slot)
    try:
        yield
    finally:
        with _making_lock:
            _making.discard(slot)


def is_abandoned(pool: Pool, entry: Entry) -> bool:
    """Whether nobody works on a creation any more, as far as seen from here.

    Its process is gone; or it is this one, and could not undo what it made
    since the cluster did not answer.
    """
    if entry.writer == processes.this():
        with _making_lock:
            return (id(pool.cluster), str(pool), entry.image) not in _making
    return not entry.writer.may_live()


def begin_creation(
    pool: Pool, name: str, source: Source | None = None
) -> Entry:
    """Remember that an image is made, under the entry's ``draft``.

    :param source: a snap that is made for it, and goes if it is undone
    """
    entry = _stamped(
        "create", name, draft=names.new_draft(name), source=source
    )
    pool.omap_swap(OBJECT, entry.key, None, entry.stored)
    return entry


def creations(pool: Pool, prefix: str = "") -> list[Entry]:
    """Entries of the images being made whose names begin so."""
    return _entries(pool, f"create_{prefix}")


def _entries(pool: Pool, prefix: str) -> list[Entry]:
    """Oldest first."""
    found = pool.omap_get(OBJECT, prefix).values()
    entries = [Entry.decoded(value) for value in found]
    return sorted(entries, key=lambda entry: entry.begun_at)


def deletion(pool: Pool, image_id: str) -> Entry | None:
    """The entry of an image being deleted; None: nobody deletes it."""
    value = pool.omap_value(OBJECT, f"delete_{image_id}")
    return None if value is None else Entry.decoded(value)


def deletions(pool: Pool) -> list[Entry]:
    """All that still has to be deleted in this pool, oldest first."""
    return _entries(pool, "delete_")


def begin_deletion(
    pool: Pool, image: str, image_id: str, own_snaps: tuple[str, ...]
) -> Entry:
    """Remember that the image goes; already remembered: that entry."""
    entry = _stamped("delete", image, image_id=image_id, own_snaps=own_snaps)
    if not _swap(pool, entry.key, None, entry.stored):
        return deletion(pool, image_id) or entry
    return entry


def renew_deletion(pool: Pool, entry: Entry) -> None:
    """Have the entry there, and newer than what anybody has read of it.

    Who was about to drop it then does not; dropped already: made again.
    """
    new = dataclasses.replace(
        entry, begun_at=time.time(), claim="", claimed_until=0.0
    ).encoded()
    stored: str | None = entry.stored
    while not _swap(pool, entry.key, stored, new.stored):
        now = deletion(pool, entry.image_id)
        stored = None if now is None else now.stored


def begin_detachment(pool: Pool, creation: Entry, image_id: str) -> Entry:
    """Remember that a snapshot still shares data with its disk."""
    entry = _stamped(
        "detach",
        creation.image,
        image_id=image_id,
        source=creation.source,
        offer=Offer.NOT_MADE,
    )
    pool.omap_swap(OBJECT, entry.key, None, entry.stored)
    return entry


def detachments(pool: Pool) -> list[Entry]:
    """All snapshots of the pool that still share data, oldest first."""
    return _entries(pool, "detach_")


@once_more
def record_offer(pool: Pool, entry: Entry, offer: Offer) -> Entry:
    """Remember what Glance knows; remembered already: done.

    :raises Conflict: another process is at it, or has removed the snapshot
    """
    while True:
        if changed := _replaced(pool, entry, offer=offer):
            return changed
        value = pool.omap_value(OBJECT, entry.key)
        now = None if value is None else Entry.decoded(value)
        if now is not None and now.offer is offer:
            return now
        if now is None or is_claimed(now):
            raise errors.Conflict(
                "another process removes it, or has done so",
                operation="give to Glance",
                pool=str(pool),
                image=entry.image,
            )
        entry = now


def claim(pool: Pool, entry: Entry, seconds: float) -> Entry | None:
    """Take an entry for this process alone; None: another has it.

    A claim ends with its process where that can be seen, else after
    seconds, so that no two hosts report each other as in the way.
    """
    if is_claimed(entry):
        return None
    until = time.time() + seconds
    claimed = _replaced(
        pool, entry, claim=str(processes.this()), claimed_until=until
    )
    if claimed is not None:
        _claimed_here.add(entry.key)
    return claimed


# Of this process's claims those that it is at: another is left from a run
# that lost Ceph before it could end it.
_claimed_here: set[str] = set()


def is_claimed(entry: Entry) -> bool:
    """Whether a process that may be alive is at it."""
    if entry.claimed_until <= time.time():
        return False
    claimant = processes.Process.parsed(entry.claim)
    if claimant == processes.this():
        return entry.key in _claimed_here
    return claimant.may_live()


def give_back(pool: Pool, claimed: Entry) -> None:
    """End a claim: the work could not be done now."""
    _claimed_here.discard(claimed.key)
    _replaced(pool, claimed, claim="", claimed_until=0.0)


def _replaced(pool: Pool, entry: Entry, **changes: Any) -> Entry | None:
    new = dataclasses.replace(entry, **changes).encoded()
    swapped = _swap(pool, entry.key, entry.stored, new.stored)
    return new if swapped else None


def drop(pool: Pool, entry: Entry) -> None:
    """The work is done; somebody else's newer entry stays."""
    _claimed_here.discard(entry.key)
    _swap(pool, entry.key, entry.stored, None)


def _swap(pool: Pool, key: str, old: str | None, new: str | None) -> bool:
    """Change an entry, be the pool full: all but what begins to make one."""
    return pool.omap_swap(OBJECT, key, old, new, frees=True)
