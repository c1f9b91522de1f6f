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

"""What is under construction or deletion in a pool, for whoever comes next.

One RADOS object per pool; its omap has an entry ``create_<draft>`` while an
image is being made under its draft's name, and ``delete_<image id>`` until
the space of a deleted image is free. The entries are a record of what to
look for after a process died, not of what is whole: an image that has its
own name is.
"""

import contextlib
import dataclasses
import functools
import json
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

from nova_rbd_backend import errors, names
from nova_rbd_backend.storage import offload
from nova_rbd_backend.storage.pool import Pool

OBJECT = "nova_rbd_journal"


@functools.cache
def _identity(pid: int) -> str:
    """This process, so that no later one is taken for it.

    A pid alone comes again, in a container at each start: with it go the
    machine's boot, the pid namespace and the process's start in clock ticks.
    """
    return f"{_boot()}.{_pid_namespace()}.{_started(pid)}"


def _boot() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def _pid_namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


def _started(pid: int) -> str:
    """Clock ticks from the machine's boot; empty: no such process."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return ""


@dataclasses.dataclass(frozen=True)
class Entry:
    """:ivar image: the name that is made, or was deleted
    :ivar draft: of what is made: its name until it is whole
    :ivar image_id: of what is deleted
    :ivar own_snaps: names, and prefixes with ``*``, that deletion removes
    :ivar host, pid, process: whose entry it is
    :ivar claim: whose purge is at it now, as ``host/pid/process``
    :ivar claimed_until: when the claim ends, if its process does not
    :ivar stored: the entry as the pool has it, for compare-and-swap; it may
        have fields of a later version
    """

    operation: str
    image: str
    draft: str = ""
    image_id: str = ""
    own_snaps: tuple[str, ...] = ()
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
        found["stored"] = value.decode()
        return cls(**found)


def _stamped(operation: str, image: str, **facts: Any) -> Entry:
    return Entry(
        operation,
        image,
        host=socket.gethostname(),
        pid=os.getpid(),
        process=_identity(os.getpid()),
        begun_at=time.time(),
        **facts,
    ).encoded()


def _lives(host: str, pid: int, process: str) -> bool:
    """Whether a process may be alive: one that cannot be seen always may."""
    if host != socket.gethostname():
        return True
    boot, namespace, started = process.split(".")
    if boot != _boot():
        return False
    if int(namespace) != _pid_namespace():
        return True
    return _started(pid) == started


# What this process is making, so that a second thread is told so.
_making: set[tuple[int, str, str]] = set()
_making_lock = offload.original_threading().Lock()


def _after_fork_in_child() -> None:
    global _making_lock
    _making_lock = offload.original_threading().Lock()
    _making.clear()


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
    if entry.process == _identity(os.getpid()):
        with _making_lock:
            return (id(pool.cluster), str(pool), entry.image) not in _making
    return not _lives(entry.host, entry.pid, entry.process)


def begin_creation(pool: Pool, name: str) -> Entry:
    """Remember that an image is made, under the entry's ``draft``."""
    entry = _stamped("create", name, draft=names.new_draft(name))
    pool.omap_swap(OBJECT, entry.key, None, entry.stored)
    return entry


def creations(pool: Pool, prefix: str = "") -> list[Entry]:
    """Entries of the images being made whose names begin so."""
    found = pool.omap_get(OBJECT, f"create_{prefix}")
    return [Entry.decoded(value) for value in found.values()]


def deletion(pool: Pool, image_id: str) -> Entry | None:
    """The entry of an image being deleted; None: nobody deletes it."""
    value = pool.omap_value(OBJECT, f"delete_{image_id}")
    return None if value is None else Entry.decoded(value)


def deletions(pool: Pool) -> list[Entry]:
    """All that still has to be deleted in this pool, oldest first."""
    found = pool.omap_get(OBJECT, "delete_").values()
    entries = [Entry.decoded(value) for value in found]
    return sorted(entries, key=lambda entry: entry.begun_at)


def begin_deletion(
    pool: Pool, image: str, image_id: str, own_snaps: tuple[str, ...]
) -> Entry:
    """Remember that the image goes; already remembered: that entry."""
    entry = _stamped("delete", image, image_id=image_id, own_snaps=own_snaps)
    if not pool.omap_swap(OBJECT, entry.key, None, entry.stored):
        return deletion(pool, image_id) or entry
    return entry


def claim(pool: Pool, entry: Entry, seconds: float) -> Entry | None:
    """Take a deletion for this process alone; None: another has it.

    A claim ends with its process where that can be seen, else after
    seconds, so that no two hosts report each other as in the way.
    """
    pid = os.getpid()
    mine = f"{socket.gethostname()}/{pid}/{_identity(pid)}"
    # One of our own is left from a run that lost Ceph before it could end it:
    # a process has one purge at a time.
    if entry.claim != mine and entry.claimed_until > time.time():
        host, other, process = entry.claim.split("/")
        if _lives(host, int(other), process):
            return None
    return _replaced(pool, entry, mine, time.time() + seconds)


def give_back(pool: Pool, claimed: Entry) -> None:
    """End a claim: the image could not be freed now."""
    _replaced(pool, claimed, "", 0.0)


def _replaced(
    pool: Pool, entry: Entry, claim: str, claimed_until: float
) -> Entry | None:
    new = dataclasses.replace(
        entry, claim=claim, claimed_until=claimed_until
    ).encoded()
    swapped = pool.omap_swap(OBJECT, entry.key, entry.stored, new.stored)
    return new if swapped else None


def drop(pool: Pool, entry: Entry) -> None:
    """The work is done; somebody else's newer entry stays."""
    pool.omap_swap(OBJECT, entry.key, entry.stored, None)
