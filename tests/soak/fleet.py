# SPDX-License-Identifier: Apache-2.0

"""The servers and snapshots of a run, and who does something to which."""

import contextlib
import dataclasses
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from tests.soak import actions
from tests.soak.counters import Counter
from tests.soak.plan import Step
from tests.soak.requests_of_users import task

T = TypeVar("T")
MOST_SERVERS = 7
MOST_SNAPSHOTS = 5


@dataclasses.dataclass(eq=False)
class Member:
    """One server.

    :ivar before_move: the flavor, and the guest's number, before its last
        resize or migration
    :ivar hidden: the guest's number before it was rescued
    :ivar users: how many lanes do something to it
    :ivar meetings: how often two lanes did so at a time
    :ivar harmed: a fault has broken an action of this server
    """

    id: str
    flavor: str
    before_move: tuple[str, int | None] = ("", None)
    hidden: int | None = None
    users: int = 0
    meetings: int = 0
    harmed: bool = False


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """An image made of a server; ``counter`` is what its disk must have."""

    id: str
    flavor: str
    counter: Counter


class Fleet:
    """All members and snapshots; used by all lanes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._members: dict[str, Member] = {}
        self._ever: dict[str, Member] = {}
        self._places = 0
        self.snapshots: list[Snapshot] = []

    @contextlib.contextmanager
    def place(self) -> Iterator[bool]:
        """Keep room for one more server; False: there is none."""
        with self._lock:
            room = len(self._members) + self._places < MOST_SERVERS
            self._places += room
        try:
            yield room
        finally:
            with self._lock:
                self._places -= room

    def add(self, member: Member) -> None:
        with self._lock:
            self._members[member.id] = self._ever[member.id] = member

    def chosen(
        self, step: Step, servers: Mapping[str, dict[str, Any]]
    ) -> Member | None:
        """Return the member that the step is done to, and forget the gone.

        :param servers: as Nova's API shows them now
        """
        action = actions.ACTIONS[step.action]
        with self._lock:
            for gone in self._members.keys() - servers.keys():
                if not self._members[gone].users:
                    del self._members[gone]
            ready = [
                member
                for member in self._members.values()
                if member.id in servers and action.fits(servers[member.id])
            ]
            busy = [member for member in ready if member.users]
            free = [
                member
                for member in ready
                if not member.users and task(servers[member.id]) is None
            ]
        return picked(busy if step.busy and busy else free, step.pick)

    @contextlib.contextmanager
    def used(self, member: Member) -> Iterator[None]:
        """Count who does something to a member at a time."""
        with self._lock:
            member.users += 1
            if member.users > 1:
                member.meetings += 1
        try:
            yield
        finally:
            with self._lock:
                member.users -= 1

    def met(self) -> set[str]:
        """Ids of the servers to which two things were done at a time."""
        return {m.id for m in list(self._ever.values()) if m.meetings}

    def harmed(self) -> set[str]:
        """Ids of the servers that a fault, or a second action, has met."""
        ever = list(self._ever.values())
        return {m.id for m in ever if m.harmed or m.meetings}

    def keep(self, snapshot: Snapshot) -> Snapshot | None:
        """Keep a snapshot; return the one that is too many."""
        with self._lock:
            self.snapshots.append(snapshot)
            if len(self.snapshots) > MOST_SNAPSHOTS:
                return self.snapshots.pop(0)
        return None


def picked(choices: Sequence[T], pick: float) -> T | None:
    """Return the choice at this part of the sequence; None: there is none."""
    return choices[int(pick * len(choices))] if choices else None
