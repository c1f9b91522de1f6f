# SPDX-License-Identifier: Apache-2.0

"""What is being made or deleted in a pool, for the process that comes next.

One RADOS object per pool; its omap has an entry ``create_<draft>`` while an
image is being made under its draft's name, ``delete_<image id>`` until the
space of a deleted image is free, and ``detach_<image id>`` while a snapshot
shares data with its disk. The entries record what to look for after a process
died. They do not record what is whole: every image with its own name is whole.
"""

import contextlib
import dataclasses
import enum
import json
import os
import time
from collections.abc import Iterator
from typing import Any

from nova_rbd_backend import errors, names, threads
from nova_rbd_backend.ceph.cluster import once_more
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage.process import Process, this_process

OBJECT = "nova_rbd_journal"


@dataclasses.dataclass(frozen=True)
class Source:
    """A snap made for a snapshot, by its disk's id: disks may be renamed."""

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
    """One piece of work on an image.

    :ivar image: the name of the image that is made, or was deleted
    :ivar draft: of an image that is made: its name until it is whole
    :ivar image_id: of an image that is deleted or detached
    :ivar own_snaps: names, and prefixes with ``*``, that deletion removes
    :ivar host, pid, process: who wrote the entry
    :ivar source: of a snapshot: the snap it is made of, which is removed when
        the snapshot is detached
    :ivar offer: of a snapshot: what Glance knows of it
    :ivar claim: who works on it now, as ``host/pid/process``
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
    def writer(self) -> Process:
        return Process(self.host, self.pid, self.process)

    @property
    def age_seconds(self) -> float:
        return max(0.0, time.time() - self.begun_at)

    def encoded(self) -> "Entry":
        """Return the same entry with ``stored`` set."""
        facts = dataclasses.asdict(self)
        del facts["stored"]
        text = json.dumps(facts, sort_keys=True)
        return dataclasses.replace(self, stored=text)

    @classmethod
    def decoded(cls, value: bytes) -> "Entry":
        """Read an entry; fields that a later version added are skipped."""
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
            # An unknown offer: Glance is asked before anything is removed.
            known_offer = offer in list(Offer)
            found["offer"] = Offer(offer) if known_offer else Offer.UNDER_WAY
        found["stored"] = value.decode()
        return cls(**found)


def _stamped(operation: str, image: str, **facts: Any) -> Entry:
    return Entry(
        operation,
        image,
        **dataclasses.asdict(this_process()),
        begun_at=time.time(),
        **facts,
    ).encoded()


class _Here:
    """What this process itself is at, which no entry can tell.

    A claim of this process that is not among ``claims`` is left from a run
    that lost Ceph before it could end the claim.
    """

    def __init__(self) -> None:
        self.lock = threads.original_threading().Lock()
        #: Images being made, by cluster, pool and name.
        self.making: set[tuple[int, str, str]] = set()
        #: Keys of the claimed entries.
        self.claims: set[str] = set()

    def after_fork(self) -> None:
        """In the child: all of it is the parent's work."""
        self.lock = threads.original_threading().Lock()
        self.making.clear()
        self.claims.clear()


_HERE = _Here()
os.register_at_fork(after_in_child=_HERE.after_fork)


@contextlib.contextmanager
def sole_maker(pool: Pool, name: str) -> Iterator[None]:
    """Keep other threads of this process from making the same image.

    :raises BeingCreated: another thread makes it
    """
    slot = (id(pool.cluster), str(pool), name)
    with _HERE.lock:
        if slot in _HERE.making:
            raise errors.BeingCreated(
                operation="create", pool=str(pool), image=name
            )
        _HERE.making.add(slot)
    try:
        yield
    finally:
        with _HERE.lock:
            _HERE.making.discard(slot)


def is_abandoned(pool: Pool, entry: Entry) -> bool:
    """Return whether nobody works on a creation any more, as seen from here.

    Its process is gone; or it is this process, which could not undo what it
    had made because the cluster did not answer.
    """
    if entry.writer == this_process():
        with _HERE.lock:
            slot = (id(pool.cluster), str(pool), entry.image)
            return slot not in _HERE.making
    return not entry.writer.may_live()


def begin_creation(
    pool: Pool, name: str, source: Source | None = None
) -> Entry:
    """Record that an image is being made, under the entry's ``draft``.

    :param source: a snap made for it, which is removed if it is undone
    """
    entry = _stamped(
        "create", name, draft=names.new_draft(name), source=source
    )
    pool.objects.omap_swap(OBJECT, entry.key, None, entry.stored)
    return entry


def creations(pool: Pool, prefix: str = "") -> list[Entry]:
    """Return the entries of images being made whose names begin so."""
    return _entries(pool, f"create_{prefix}")


def _entries(pool: Pool, prefix: str) -> list[Entry]:
    """Oldest first."""
    found = pool.objects.omap_get(OBJECT, prefix).values()
    entries = [Entry.decoded(value) for value in found]
    return sorted(entries, key=lambda entry: entry.begun_at)


def deletion(pool: Pool, image_id: str) -> Entry | None:
    """Return the entry of an image being deleted; None: nobody deletes it."""
    value = pool.objects.omap_value(OBJECT, f"delete_{image_id}")
    return None if value is None else Entry.decoded(value)


def deletions(pool: Pool) -> list[Entry]:
    """Return all that still has to be deleted in this pool, oldest first."""
    return _entries(pool, "delete_")


def begin_deletion(
    pool: Pool, image: str, image_id: str, own_snaps: tuple[str, ...]
) -> Entry:
    """Record that an image is deleted; recorded already: return that entry."""
    entry = _stamped("delete", image, image_id=image_id, own_snaps=own_snaps)
    if not _swap(pool, entry.key, None, entry.stored):
        return deletion(pool, image_id) or entry
    return entry


def renew_deletion(pool: Pool, entry: Entry) -> None:
    """Make the entry newer than what any other process has read of it.

    A process that was about to end it then does not. It is made again if it
    has been ended already.
    """
    new = dataclasses.replace(
        entry, begun_at=time.time(), claim="", claimed_until=0.0
    ).encoded()
    stored: str | None = entry.stored
    while not _swap(pool, entry.key, stored, new.stored):
        now = deletion(pool, entry.image_id)
        stored = None if now is None else now.stored


def begin_detachment(pool: Pool, creation: Entry, image_id: str) -> Entry:
    """Record that a snapshot still shares data with its disk."""
    entry = _stamped(
        "detach",
        creation.image,
        image_id=image_id,
        source=creation.source,
        offer=Offer.NOT_MADE,
    )
    pool.objects.omap_swap(OBJECT, entry.key, None, entry.stored)
    return entry


def detachments(pool: Pool) -> list[Entry]:
    """Return all snapshots of the pool that still share data, oldest first."""
    return _entries(pool, "detach_")


@once_more
def record_offer(pool: Pool, entry: Entry, offer: Offer) -> Entry:
    """Record what Glance knows. Recorded already: done.

    :raises Conflict: another process removes the snapshot, or has done so
    """
    while True:
        if changed := _replaced(pool, entry, offer=offer):
            return changed
        value = pool.objects.omap_value(OBJECT, entry.key)
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


class Claim:
    """An entry that this process alone works on."""

    def __init__(self, entry: Entry):
        self.entry = entry
        self.finished = False

    def finish(self) -> None:
        """End the entry with the claim: its work is done."""
        self.finished = True


@contextlib.contextmanager
def claimed(
    pool: Pool, entry: Entry, seconds: float
) -> Iterator[Claim | None]:
    """Take an entry for this process alone, for the time of the block.

    Lends None if another process has it, or has changed it. The claim ends
    with the block; if its process dies, where that can be seen; and else
    after ``seconds``, so that no two hosts report each other as in the way.
    """
    until = time.time() + seconds
    taken = None
    if not is_claimed(entry):
        taken = _replaced(
            pool, entry, claim=str(this_process()), claimed_until=until
        )
    if taken is None:
        yield None
        return
    _HERE.claims.add(taken.key)
    claim = Claim(taken)
    try:
        yield claim
        if claim.finished:
            end(pool, taken)
    finally:
        _HERE.claims.discard(taken.key)
        # An error of the block says more, and the claim ends by itself. After
        # end() there is no such entry any more, and nothing is changed.
        with contextlib.suppress(errors.StorageError):
            if not claim.finished:
                _replaced(pool, taken, claim="", claimed_until=0.0)


def is_claimed(entry: Entry) -> bool:
    """Return whether a process that may be alive works on the entry."""
    if entry.claimed_until <= time.time():
        return False
    claimant = Process.parsed(entry.claim)
    if claimant == this_process():
        return entry.key in _HERE.claims
    return claimant.may_live()


def end(pool: Pool, entry: Entry) -> None:
    """Remove an entry whose work is done; a newer version of it stays."""
    _swap(pool, entry.key, entry.stored, None)


def _replaced(pool: Pool, entry: Entry, **changes: Any) -> Entry | None:
    new = dataclasses.replace(entry, **changes).encoded()
    swapped = _swap(pool, entry.key, entry.stored, new.stored)
    return new if swapped else None


def _swap(pool: Pool, key: str, old: str | None, new: str | None) -> bool:
    """Change an entry, in a full pool too (but begin_creation does not)."""
    return pool.objects.omap_swap(OBJECT, key, old, new, frees=True)
