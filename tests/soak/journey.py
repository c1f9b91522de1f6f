# SPDX-License-Identifier: Apache-2.0

"""What happened, and when: a log to trace a violation by, and the counts."""

import collections
import contextlib
import datetime
import pathlib
import threading
import time
from collections.abc import Iterator

# Nova notices some faults, and tries again, only in its next period: servers
# whose host was away are cleaned up, Placement hears of its return.
GRACE_SECONDS = 75


class Journey:
    """The log and the counts of one run; used by all its threads.

    :ivar outcomes: how often each action had each outcome
    :ivar faults: how often each kind of fault has happened
    :ivar violations: what must not be
    :ivar evacuated: ids of the servers whose host a fault has taken away
    """

    def __init__(self, path: pathlib.Path):
        self.path = path
        self.outcomes: collections.Counter[tuple[str, str]] = (
            collections.Counter()
        )
        self.faults: collections.Counter[str] = collections.Counter()
        self.violations: list[str] = []
        self.evacuated: set[str] = set()
        self._lock = threading.Lock()
        self._windows: list[tuple[float, float]] = []
        self._open: dict[object, float] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")

    def note(self, *words: object) -> None:
        """Write a line with the time and the thread."""
        now = datetime.datetime.now().isoformat(" ", "milliseconds")
        who = threading.current_thread().name
        text = " ".join(str(word) for word in words if word != "")
        with self._lock, self.path.open("a") as log:
            log.write(f"{now} {who:10} {text}\n")

    def ended(self, action: str, outcome: str) -> None:
        with self._lock:
            self.outcomes[action, outcome] += 1

    def violation(self, text: str) -> None:
        """Note what must not be, once."""
        self.note("VIOLATION", text)
        with self._lock:
            if text not in self.violations:
                self.violations.append(text)

    @contextlib.contextmanager
    def fault(self, kind: str) -> Iterator[None]:
        """Count a fault, and remember from when to when it lasted."""
        key = object()
        with self._lock:
            self.faults[kind] += 1
            self._open[key] = time.time()
        try:
            yield
        finally:
            with self._lock:
                self._windows.append((self._open.pop(key), time.time()))

    def explained(self, begin: float, end: float) -> bool:
        """Return whether a fault may be the cause of what happened then."""
        with self._lock:
            still = [(since, time.time()) for since in self._open.values()]
            return any(
                since <= end and begin <= until + GRACE_SECONDS
                for since, until in [*self._windows, *still]
            )

    def counts(self) -> str:
        """Return one line of how much has happened."""
        with self._lock:
            return (
                f"{self.outcomes.total()} actions, {self.faults.total()} "
                f"faults, {len(self.violations)} violations"
            )

    def table(self) -> str:
        """Return the actions with their outcomes, and the faults."""
        outcomes = sorted({outcome for _, outcome in self.outcomes})
        names = sorted({name for name, _ in self.outcomes})
        lines = [f"{'action':14}" + "".join(f"{o:>12}" for o in outcomes)]
        for name in names:
            numbers = [self.outcomes[name, outcome] for outcome in outcomes]
            lines.append(f"{name:14}" + "".join(f"{n:12}" for n in numbers))
        totals = [
            sum(n for (_, o), n in self.outcomes.items() if o == outcome)
            for outcome in outcomes
        ]
        lines.append(f"{'all':14}" + "".join(f"{n:12}" for n in totals))
        lines.append("")
        lines += [
            f"{kind:14}{n:12}" for kind, n in sorted(self.faults.items())
        ]
        lines.append(f"{'all faults':14}{self.faults.total():12}")
        return "\n".join(lines)
