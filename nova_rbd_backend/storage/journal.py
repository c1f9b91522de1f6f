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

"""What is under construction or deletion in a pool.

One RADOS object per pool; its omap has an entry ``create_<image>`` while
an image is being made and ``delete_<image id>`` until its space is free.
An image of which there is no entry is whole: so are the in-tree backend's.

Entries change only by compare-and-swap, so that of two hosts that make the
same disk only the one whose entry stands at the end has made it.
"""

import dataclasses
import json
import os
import socket
import time
import uuid
from typing import Any

from nova_rbd_backend import errors
from nova_rbd_backend.storage import offload
from nova_rbd_backend.storage.pool import Pool

OBJECT = "nova_rbd_journal"
# Metadata of an image made here; the last thing written before the entry
# goes. With it an image is whole even if its entry is still there.
MADE_KEY = "nova_rbd_backend.made"


@dataclasses.dataclass(frozen=True)
class Entry:
    """:ivar token: of this attempt, as MADE_KEY keeps it
    :ivar image_id: of what is deleted
    :ivar own_snaps: names, and prefixes with ``*``, that deletion removes
    :ivar claim_host: whose purge is at it now, and until when that counts
    """

    operation: str
    image: str
    token: str = ""
    image_id: str = ""
    own_snaps: tuple[str, ...] = ()
    host: str = ""
    pid: int = 0
    begun_at: float = 0.0
    claim_host: str = ""
    claim_pid: int = 0
    claimed_until: float = 0.0

    @property
    def key(self) -> str:
        if self.operation == "create":
            return f"create_{self.image}"
        return f"delete_{self.image_id}"

    @property
    def age_seconds(self) -> float:
        return max(0.0, time.time() - self.begun_at)

    def encoded(self) -> str:
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def decoded(cls, value: bytes) -> "Entry":
        """Read an entry; what a later version added is left out."""
        known = {field.name for field in dataclasses.fields(cls)}
        found: dict[str, Any] = {
            key: part
            for key, part in json.loads(value).items()
            if key in known
        }
        found["own_snaps"] = tuple(found.get("own_snaps", ()))
        return cls(**found)


def _stamped(operation: str, image: str, **facts: Any) -> Entry:
    return Entry(
        operation,
        image,
        host=socket.gethostname(),
        pid=os.getpid(),
        begun_at=time.time(),
        **facts,
    )


# What this process is making, so that a second thread is told so, while an
# entry of a dead process is taken over.
_making: set[tuple[int, str, str]] = set()
_making_lock = offload.original_threading().Lock()


def _after_fork_in_child() -> None:
    global _making_lock
    _making_lock = offload.original_threading().Lock()
    _making.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)


class Making:
    """One attempt to make an image: ``with Making(pool, name) as making``.

    Entering raises BeingCreated when this process makes it already, and
    takes over from a process that died. Leaving only forgets the attempt:
    ``finish`` says that the image is whole.
    """

    def __init__(self, pool: Pool, name: str):
        self.pool = pool
        self.entry = _stamped("create", name, token=uuid.uuid4().hex)
        self._slot = (id(pool.cluster), str(pool), name)
        self.taken_over: bool = False

    def __enter__(self) -> "Making":
        with _making_lock:
            if self._slot in _making:
                raise errors.BeingCreated(
                    operation="create",
                    pool=str(self.pool),
                    image=self.entry.image,
                )
            _making.add(self._slot)
        try:
            self._take()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with _making_lock:
            _making.discard(self._slot)

    def _take(self) -> None:
        old: str | None = None
        for _ in range(10):
            new = self.entry.encoded()
            if self.pool.omap_swap(OBJECT, self.entry.key, old, new):
                self.taken_over = old is not None
                return
            value = self.pool.omap_value(OBJECT, self.entry.key)
            old = None if value is None else value.decode()
        raise errors.Conflict(
            "others keep making it",
            operation="create",
            pool=str(self.pool),
            image=self.entry.image,
        )

    def finish(self) -> None:
        """The image is whole, or undone.

        :raises TakenOver: another host has begun to make it since
        """
        mine = self.entry.encoded()
        if not self.pool.omap_swap(OBJECT, self.entry.key, mine, None):
            raise errors.TakenOver(
                operation="create",
                pool=str(self.pool),
                image=self.entry.image,
            )


def drop_own_creation(pool: Pool, name: str) -> None:
    """Drop the entry of a whole image that a process here left as it died.

    One of another host stays: it may be about to drop it itself.
    """
    entry = creation(pool, name)
    if entry is None or entry.host != socket.gethostname():
        return
    with _making_lock:
        under_way = (id(pool.cluster), str(pool), name) in _making
    if not under_way:
        drop(pool, entry)


def creation(pool: Pool, name: str) -> Entry | None:
    """The entry of an image being made; None: nobody makes it."""
    value = pool.omap_value(OBJECT, f"create_{name}")
    return None if value is None else Entry.decoded(value)


def creations(pool: Pool, prefix: str) -> list[Entry]:
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
    if not pool.omap_swap(OBJECT, entry.key, None, entry.encoded()):
        return deletion(pool, image_id) or entry
    return entry


def claim(pool: Pool, entry: Entry, seconds: float) -> Entry | None:
    """Take a deletion for this process alone; None: another has it.

    A claim ends with its process where that can be seen, else after
    seconds, so that no two hosts report each other as in the way.
    """
    if entry.claimed_until > time.time() and _claimant_lives(entry):
        return None
    claimed = dataclasses.replace(
        entry,
        claim_host=socket.gethostname(),
        claim_pid=os.getpid(),
        claimed_until=time.time() + seconds,
    )
    swapped = pool.omap_swap(
        OBJECT, entry.key, entry.encoded(), claimed.encoded()
    )
    return claimed if swapped else None


def _claimant_lives(entry: Entry) -> bool:
    if entry.claim_host != socket.gethostname():
        return True
    try:
        os.kill(entry.claim_pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def give_back(pool: Pool, claimed: Entry) -> None:
    """End a claim: the image could not be freed now."""
    free = dataclasses.replace(
        claimed, claim_host="", claim_pid=0, claimed_until=0.0
    )
    pool.omap_swap(OBJECT, free.key, claimed.encoded(), free.encoded())


def drop(pool: Pool, entry: Entry) -> None:
    """The work is done; somebody else's newer entry stays."""
    pool.omap_swap(OBJECT, entry.key, entry.encoded(), None)
