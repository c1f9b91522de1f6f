# SPDX-License-Identifier: Apache-2.0

"""No guest's counter goes back: read the consoles of all guests, for ever.

The guest (tests/testbed/guest/parts/init.c) announces a number when it is safe
on the root disk, and says at each boot which number the disk has.
"""

import dataclasses
import json
import pathlib
import re
import threading
import time
from collections.abc import Sequence

from tests.soak.journey import Journey
from tests.testbed.host.compute_host import ComputeHost

POLL_SECONDS = 1.0
_SAID = re.compile(
    r"^(?:GUEST-COUNTER (?P<counter>\d+)|GUEST-MARKER (?P<marker>\{.*\})"
    r"|(?P<fault>GUEST-COUNTER-ERROR|GUEST-FAILED) .*)$"
)


class Counter:
    """What one guest's root disk must have.

    :ivar safe: the last number that the guest has announced; None: unknown
    :ivar lost: how many numbers the disk may lack, because the guest was told
        that they were not written
    """

    def __init__(self, safe: int | None = None, lost: float = 0):
        self.safe = safe
        self.lost = lost
        self.held = False
        self._below = False

    def hold(self) -> None:
        """Ignore what is said from now on: another disk may be the root."""
        if self.held:  # by two actions at a time: nothing is known then
            self.safe = None
        self.held = True

    def release(self, safe: int | None) -> None:
        """Listen again, to a guest whose disk has this number."""
        self.held = self._below = False
        self.safe = safe
        if safe is None:
            self.lost = float("inf")

    def hear(self, line: str) -> str:
        """Take a line of the console; return what is wrong with it, or ""."""
        said = _SAID.match(line.rstrip("\r"))
        if not said or self.held:
            return ""
        if said["fault"]:
            self.lost += 1
            return line.strip()
        if said["counter"]:
            return self._announced(int(said["counter"]))
        try:
            marker = json.loads(said["marker"])
        except json.JSONDecodeError:  # two boots' lines may run together
            return ""
        return self._came_up(marker["counter"], marker["missing"])

    def _announced(self, number: int) -> str:
        # A line that was cut short when the guest was killed has a smaller
        # number; two in a row are no accident.
        if self.safe is not None and number < self.safe:
            complaint = f"announces {number} after {self.safe}"
            below, self._below = self._below, True
            return complaint if below else ""
        self._below = False
        self.safe = number
        return ""

    def _came_up(self, number: int, missing: int) -> str:
        safe, self.safe = self.safe, number
        if safe is not None and number < safe:
            return f"came up with {number} after {safe} was safe"
        if missing > self.lost:
            return f"came up without {missing} numbers below {number}"
        return ""


@dataclasses.dataclass
class _File:
    inode: int = 0
    offset: int = 0


class Listener:
    """Hears all guests of the hosts, each as long as it is known."""

    def __init__(self, hosts: Sequence[ComputeHost], journey: Journey):
        self._hosts = hosts
        self._journey = journey
        self._counters: dict[str, Counter] = {}
        self._files: dict[pathlib.Path, _File] = {}
        self._lock = threading.RLock()

    def expect(self, server_id: str, counter: Counter) -> None:
        with self._lock:
            self._counters[server_id] = counter

    def safe(self, server_id: str) -> Counter:
        """What the guest has announced by now, as a counter to start from."""
        with self._lock:
            self.poll()
            known = self._counters.get(server_id)
            if known is None or known.held:
                return Counter(None, float("inf"))
            return Counter(known.safe, known.lost)

    def hold(self, server_id: str) -> int | None:
        """Ignore the guest until it is released; its number so far."""
        with self._lock:
            self.poll()
            counter = self._counters[server_id]
            counter.hold()
            return counter.safe

    def release(self, server_id: str, safe: int | None) -> None:
        """Ignore what the guest has said meanwhile, listen from now on."""
        with self._lock:
            self.poll()
            self._counters[server_id].release(safe)

    def run(self, end: threading.Event) -> None:
        while not end.wait(POLL_SECONDS):
            self.poll()
        self.poll()

    def poll(self) -> None:
        """Read the new lines of all consoles."""
        with self._lock:
            for server_id, counter in self._counters.items():
                # After a move, the older console comes first.
                for path in sorted(self._consoles(server_id), key=_changed):
                    for line in self._new_lines(path):
                        if wrong := counter.hear(line):
                            self._complain(server_id, path, wrong)

    def _complain(
        self, server_id: str, path: pathlib.Path, wrong: str
    ) -> None:
        where = path.parents[3].name
        text = f"guest of {server_id} on {where}: {wrong}"
        if wrong.startswith("GUEST-"):
            now = time.time()
            if self._journey.explained(now, now):
                self._journey.note(text)
                return
        self._journey.violation(text)

    def _consoles(self, server_id: str) -> list[pathlib.Path]:
        name = pathlib.Path("state/instances") / server_id / "console.log"
        paths = [host.folder / name for host in self._hosts]
        return [path for path in paths if path.exists()]

    def _new_lines(self, path: pathlib.Path) -> list[str]:
        try:
            inode, size = path.stat().st_ino, path.stat().st_size
            known = self._files.setdefault(path, _File(inode))
            if known.inode != inode or known.offset > size:
                known.inode, known.offset = inode, 0
            with path.open("rb") as console:
                console.seek(known.offset)
                whole, newline, _ = console.read().rpartition(b"\n")
        except FileNotFoundError:
            return []
        known.offset += len(whole) + len(newline)
        return whole.decode(errors="replace").split("\n")


def _changed(path: pathlib.Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
