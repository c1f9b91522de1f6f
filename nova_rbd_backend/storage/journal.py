# SPDX-License-Identifier: Apache-2.0

"""Record in each pool what is being made or deleted there.

An object in the pool has an omap entry ``create_<draft>`` while an image is
being made under its draft's name, ``delete_<image id>`` until the space of a
deleted image is free, ``detach_<image id>`` while a snapshot shares data with
its disk, and ``spawn_<instance>`` while a nova-compute makes the disks of an
instance and starts its guest. The entries tell what to look for after a
process has died. They do not tell which images are whole: every image that has
its own name is.
"""

import contextlib
import dataclasses
import enum
import json
import os
import time
from collections.abc import Iterable, Iterator
from typing import Any

from nova_rbd_backend import errors, names, threads
from nova_rbd_backend.ceph import lease
from nova_rbd_backend.ceph.cluster import once_more
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage import due
from nova_rbd_backend.storage.process import Process, this_process

OBJECT = "nova_rbd_journal"
#: Kinds of entries that hosts look at for each other: prefixes of their keys.
DELETE, DETACH = "delete_", "detach_"
# To read each of more entries takes longer than to list all, as a rule.
_FEW = 20


@dataclasses.dataclass(frozen=True)
class Source:
    """The snap that a snapshot is cloned from; its disk may be renamed."""

    pool: str
    image_id: str
    snap: str


class Offer(enum.StrEnum):
    """Whether Glance has a snapshot's location."""

    NOT_MADE = "not made"
    UNDER_WAY = "under way"  # Glance was asked, and has not answered yet
    ACCEPTED = "accepted"


@dataclasses.dataclass(frozen=True)
class Entry:
    """A record of a creation, deletion, detachment or spawn.

    :ivar image: the image's own name; of a spawn: the instance's UUID
    :ivar draft: of a creation: the name until the image is whole
    :ivar whole: of a creation: the draft is whole, and the image that it
        replaces may be in the trash
    :ivar image_id: of a deletion or detachment
    :ivar own_snaps: of a deletion: the snaps that it removes, as names and
        prefixes with ``*``
    :ivar source: of a snapshot: the snap that is removed when the snapshot is
        detached
    :ivar offer: of a snapshot
    :ivar compute: of a spawn: the nova-compute, as Nova calls its host
    :ivar host, pid, process: the process that wrote the entry
    :ivar claim: the process that works on it now, as ``host/pid/process``
    :ivar claimed_until: when the claim ends at the latest
    :ivar stored: the entry as the pool has it, for compare-and-swap; it may
        have fields of a later version
    """

    operation: str
    image: str
    draft: str = ""
    whole: bool = False
    image_id: str = ""
    own_snaps: tuple[str, ...] = ()
    source: Source | None = None
    offer: Offer | None = None
    compute: str = ""
    host: str = ""
    pid: int = 0
    process: str = ""
    begun_at: float = 0.0
    claim: str = ""
    claimed_until: float = 0.0
    stored: str = dataclasses.field(default="", compare=False, repr=False)

    @property
    def key(self) -> str:
        return f"{self.operation}_{self.draft or self.image_id or self.image}"

    @property
    def writer(self) -> Process:
        return Process(self.host, self.pid, self.process)

    @property
    def age_seconds(self) -> float:
        return max(0.0, time.time() - self.begun_at)

    def encoded(self) -> "Entry":
        """Return the entry with ``stored`` set."""
        facts = dataclasses.asdict(self)
        del facts["stored"]
        text = json.dumps(facts, sort_keys=True)
        return dataclasses.replace(self, stored=text)

    @classmethod
    def decoded(cls, value: bytes) -> "Entry":
        """Read an entry; skip fields that a later version added."""
        found = {
            key: part
            for key, part in json.loads(value).items()
            if key in cls.__dataclass_fields__
        }
        found["own_snaps"] = tuple(found.get("own_snaps", ()))
        if source := found.get("source"):
            found["source"] = Source(
                source["pool"], source["image_id"], source["snap"]
            )
        if offer := found.get("offer"):
            # For an offer of a later version, Glance is asked before anything
            # is removed.
            known_offer = offer in list(Offer)
            found["offer"] = Offer(offer) if known_offer else Offer.UNDER_WAY
        return cls(**{**found, "stored": value.decode()})


def _stamped(operation: str, image: str, **facts: Any) -> Entry:
    return Entry(
        operation,
        image,
        **dataclasses.asdict(this_process()),
        begun_at=time.time(),
        **facts,
    ).encoded()


class _Here:
    """The work of this process, which no entry can tell.

    A claim of this process that is not among ``claims`` is left from a run
    that lost Ceph before it could end the claim.

    :ivar making: images and instances being made, by cluster, pool and name
    :ivar claims: keys of the claimed entries
    """

    def __init__(self) -> None:
        self.lock = threads.original_threading().Lock()
        self.making: set[tuple[int, str, str]] = set()
        self.claims: set[str] = set()

    def after_fork(self) -> None:
        """Forget the parent's work in the child."""
        self.lock = threads.original_threading().Lock()
        self.making.clear()
        self.claims.clear()


_HERE = _Here()
os.register_at_fork(after_in_child=_HERE.after_fork)


@contextlib.contextmanager
def sole_maker(pool: Pool, name: str) -> Iterator[None]:
    """Keep other threads of this process from making the same image.

    :param name: the image's; of a spawn: the instance's UUID

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
    """Return whether no process works on a creation or spawn any more.

    Its process is dead, as far as this host can see. Or it is this process,
    which could not undo or end it because the cluster did not answer.
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

    :param source: of a snapshot: the snap that is removed if it is undone
    """
    entry = _stamped(
        "create", name, draft=names.new_draft(name), source=source
    )
    pool.objects.omap_swap(OBJECT, entry.key, None, entry.stored)
    return entry


def record_whole(pool: Pool, entry: Entry) -> Entry:
    """Record that a draft is whole, before it replaces an image.

    :raises TakenOver: another process has removed the draft
    """
    if changed := _replaced(pool, entry, whole=True):
        return changed
    raise errors.TakenOver(
        "the draft is gone",
        operation="replace",
        pool=str(pool),
        image=entry.image,
    )


def creations(pool: Pool, prefix: str = "") -> list[Entry]:
    """Return the creations of images whose names have this prefix."""
    return _entries(pool, f"create_{prefix}")


def _entries(pool: Pool, prefix: str) -> list[Entry]:
    """Return entries, the oldest first."""
    found = pool.objects.omap_get(OBJECT, prefix).values()
    entries = [Entry.decoded(value) for value in found]
    return sorted(entries, key=lambda entry: entry.begun_at)


def _entry(pool: Pool, key: str) -> Entry | None:
    value = pool.objects.omap_value(OBJECT, key)
    return None if value is None else Entry.decoded(value)


def deletion(pool: Pool, image_id: str) -> Entry | None:
    """Return the deletion of an image; None: it is not being deleted."""
    return _entry(pool, f"{DELETE}{image_id}")


def detachment(pool: Pool, image_id: str) -> Entry | None:
    """Return the detachment of a snapshot; None: it shares nothing."""
    return _entry(pool, f"{DETACH}{image_id}")


def deletions(pool: Pool) -> list[Entry]:
    """Return the deletions of the pool, the oldest first."""
    return _entries(pool, DELETE)


def begin_deletion(
    pool: Pool, image: str, image_id: str, own_snaps: tuple[str, ...]
) -> Entry:
    """Record that an image is deleted; return its entry, old or new.

    Notes it for purges by this process; see :mod:`.due`.
    """
    entry = _stamped("delete", image, image_id=image_id, own_snaps=own_snaps)
    if not _swap(pool, entry.key, None, entry.stored):
        entry = deletion(pool, image_id) or entry
    due.note(pool, entry.key)
    return entry


def renew_deletion(pool: Pool, entry: Entry) -> None:
    """Change the entry, or make it again if it has been ended.

    A process that has read the entry then does not end it.
    """
    new = dataclasses.replace(
        entry, begun_at=time.time(), claim="", claimed_until=0.0
    ).encoded()
    stored: str | None = entry.stored
    while not _swap(pool, entry.key, stored, new.stored):
        current = deletion(pool, entry.image_id)
        stored = None if current is None else current.stored
    due.note(pool, entry.key)


def due_here(pool: Pool, kind: str) -> list[Entry]:
    """Return the entries that this process has to look at, the oldest first.

    One request for each, if they are few. The first time, looks among all
    entries of the pool for those that dead processes of this host have begun
    or claimed.

    :param kind: DELETE or DETACH
    """
    read: dict[str, Entry] = {}
    if not due.is_searched(pool, kind):
        read = _searched(pool, kind)
    elif len(due.keys(pool, kind)) > _FEW:
        read = _by_key(pool, kind)
    noted = due.keys(pool, kind)
    found = [read.get(key) or _noted_entry(pool, key) for key in noted]
    return sorted(filter(None, found), key=lambda entry: entry.begun_at)


def _searched(pool: Pool, kind: str) -> dict[str, Entry]:
    """Note what dead processes of this host have left; return all entries.

    One host at a time, or else a thousand that are started together would
    read what all have deleted and keep, a thousand times from one OSD. A host
    that finds another one at it does nothing, and comes again with its next
    delete or period.
    """
    with lease.turn(pool, f"{kind}search", 0, frees=True) as turn:
        if turn is None:
            return {}
        read = _by_key(pool, kind)
    for entry in filter(_is_left_here, read.values()):
        due.note(pool, entry.key)
    due.record_searched(pool, kind)
    return read


def _by_key(pool: Pool, kind: str) -> dict[str, Entry]:
    return {entry.key: entry for entry in _entries(pool, kind)}


def _is_left_here(entry: Entry) -> bool:
    """Return whether a dead process of this host has begun or claimed it."""
    workers = [entry.writer]
    if entry.claim:
        workers.append(Process.parsed(entry.claim))
    return not all(worker.may_live() for worker in workers)


def _noted_entry(pool: Pool, key: str) -> Entry | None:
    """Return an entry; None, and not noted any more: it has been ended."""
    # Before the look, so that what is noted meanwhile stays noted.
    due.take(pool, key)
    is_gone = False
    try:
        entry = _entry(pool, key)
        is_gone = entry is None
    finally:
        if not is_gone:
            due.note(pool, key)
    return entry


def begin_detachment(pool: Pool, creation: Entry, image_id: str) -> Entry:
    """Record that a snapshot still shares data with its disk.

    Notes it, so that this process detaches it; see :mod:`.due`.
    """
    entry = _stamped(
        "detach",
        creation.image,
        image_id=image_id,
        source=creation.source,
        offer=Offer.NOT_MADE,
    )
    pool.objects.omap_swap(OBJECT, entry.key, None, entry.stored)
    due.note(pool, entry.key)
    return entry


def detachments(pool: Pool) -> list[Entry]:
    """Return the detachments of the pool, the oldest first."""
    return _entries(pool, DETACH)


@once_more
def read_again(pool: Pool, entries: Iterable[Entry]) -> list[Entry]:
    """Return entries as they are now, without those that have been ended."""
    found = [_entry(pool, entry.key) for entry in entries]
    return [entry for entry in found if entry is not None]


@once_more
def record_offer(pool: Pool, entry: Entry, offer: Offer) -> Entry:
    """Record whether Glance has a snapshot's location, unless it is recorded.

    :raises Conflict: another process removes the snapshot, or has removed it
    """
    while True:
        if changed := _replaced(pool, entry, offer=offer):
            return changed
        current = _entry(pool, entry.key)
        if current is not None and current.offer is offer:
            return current
        if current is None or is_claimed(current):
            raise errors.Conflict(
                "another process removes it, or has done so",
                operation="give to Glance",
                pool=str(pool),
                image=entry.image,
            )
        entry = current


@once_more
def begin_spawn(pool: Pool, instance_uuid: str, compute: str) -> Entry:
    """Record that a nova-compute begins to spawn an instance.

    Replaces the entry of an earlier spawn, of whichever host.
    """
    entry = _stamped("spawn", instance_uuid, compute=compute)
    stored: str | None = None
    while not _swap(pool, entry.key, stored, entry.stored):
        current = _entry(pool, entry.key)
        stored = None if current is None else current.stored
    return entry


@once_more
def spawns(pool: Pool) -> list[Entry]:
    """Return the spawns that have not ended, the oldest first."""
    return _entries(pool, "spawn_")


@dataclasses.dataclass
class Claim:
    """An entry that this process alone works on."""

    entry: Entry
    finished: bool = False

    def finish(self) -> None:
        """End the entry together with the claim: its work is done."""
        self.finished = True


@contextlib.contextmanager
def claimed(
    pool: Pool, entry: Entry, seconds: float
) -> Iterator[Claim | None]:
    """Claim an entry for this process alone, for the time of the block.

    Lends None if another process has claimed or changed the entry. The claim
    ends with the block. If its process dies, the claim ends at once for that
    host, and after ``seconds`` for other hosts, so that no two hosts report
    each other as in the way.
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
    claim, ended = Claim(taken), False
    try:
        yield claim
        if claim.finished:
            end(pool, taken)
            ended = True
    finally:
        _HERE.claims.discard(taken.key)
        # An error of the block says more than an error here, and the claim
        # ends by itself. After end() there is no such entry to change.
        with contextlib.suppress(errors.StorageError):
            if not ended:
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
    """Remove an entry whose work is done, unless it has been changed."""
    _swap(pool, entry.key, entry.stored, None)


def _replaced(pool: Pool, entry: Entry, **changes: Any) -> Entry | None:
    new = dataclasses.replace(entry, **changes).encoded()
    swapped = _swap(pool, entry.key, entry.stored, new.stored)
    return new if swapped else None


def _swap(pool: Pool, key: str, old: str | None, new: str | None) -> bool:
    """Change an entry, also in a full pool."""
    return pool.objects.omap_swap(OBJECT, key, old, new, frees=True)
