# SPDX-License-Identifier: Apache-2.0

"""Start, find again and end the testbed's own processes; wait with a limit.

A process is remembered by pid *and* start time, so that a later run never
signals another process that got the same pid.
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")
_LAST_LINES = 15


class TestbedError(Exception):
    """The testbed could not do what it was asked; the text says what to do."""

    __test__ = False  # for pytest: not a class of tests


def wait_for(
    what: str,
    predicate: Callable[[], T],
    limit_seconds: float,
    interval_seconds: float = 0.1,
) -> T:
    """Call predicate() until its value is true, and return that value.

    :raises TestbedError: no value was true within the limit; names ``what``
    """
    end = time.monotonic() + limit_seconds
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > end:
            raise TestbedError(f"not within {limit_seconds:g} s: {what}")
        time.sleep(interval_seconds)


def ended_at_start(name: str, log: pathlib.Path) -> TestbedError:
    """Return the error for a daemon that has ended, with its last words."""
    words = log.read_text(errors="replace").splitlines()[-_LAST_LINES:]
    first = f"{name} ended at start, see {log}"
    return TestbedError("\n".join((first, *words)))


def start_time(pid: int) -> int | None:
    """Clock ticks from boot to the process's start; None if there is none.

    A zombie counts as gone: pid 1 of a container may reap late.
    """
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rsplit(")", 1)[1].split()
    return None if fields[0] in "ZX" else int(fields[19])


def rss_bytes(pid: int | None) -> int:
    """Resident memory of a process; 0 if it does not exist."""
    try:
        pages = pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


class Process:
    """One daemon, remembered in ``folder/<name>.json``, logging to a file."""

    def __init__(self, folder: pathlib.Path, name: str):
        self.name = name
        self.record = folder / f"{name}.json"

    def start(
        self,
        command: Sequence[str],
        log: pathlib.Path,
        env: Mapping[str, str] | None = None,
        cwd: pathlib.Path | None = None,
    ) -> int:
        """Start it in its own session, unless it runs; return the pid."""
        if (pid := self.pid()) is not None:
            return pid
        log.parent.mkdir(parents=True, exist_ok=True)
        self.record.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=env,
                cwd=cwd,
                start_new_session=True,
            )
        self.adopt(child.pid)
        return child.pid

    def adopt(self, pid: int) -> None:
        """Remember a process that something else started (a daemon)."""
        entry = {"pid": pid, "start": start_time(pid)}
        self.record.parent.mkdir(parents=True, exist_ok=True)
        self.record.write_text(json.dumps(entry))

    def pid(self) -> int | None:
        """The pid while it runs, else None."""
        try:
            entry = json.loads(self.record.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        alive = start_time(entry["pid"]) == entry["start"] is not None
        return entry["pid"] if alive else None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal. Does nothing if the process does not run."""
        if (pid := self.pid()) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def freeze(self) -> None:
        """Stop all its threads until a SIGCONT; nothing if not running."""
        if (pid := self.pid()) is not None:
            freeze(pid)

    def stop(self, limit_seconds: float = 15, group: bool = False) -> None:
        """Send SIGTERM, and SIGKILL after the limit; nothing if not running.

        :param group: then SIGKILL what is left of its process group
        """
        pid = self.pid()
        if pid is not None:
            self.signal(signal.SIGTERM)
            try:
                wait_for(
                    f"{self.name} (pid {pid}) ends",
                    lambda: reaped(pid) or self.pid() is None,
                    limit_seconds,
                )
            except TestbedError:
                self.signal(signal.SIGKILL)
                wait_for(
                    f"{self.name} (pid {pid}) ends after SIGKILL",
                    lambda: reaped(pid) or self.pid() is None,
                    10,
                )
            if group:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)
        self.record.unlink(missing_ok=True)


def freeze(*pids: int) -> None:
    """SIGSTOP processes; on return none of their threads runs.

    Without the wait they go on until one thread of each has handled the
    signal, which takes a while on a busy machine.
    """
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    for pid in pids:
        wait_for(f"{pid} has stopped", lambda p=pid: _stopped(p), 30, 0.005)


def _stopped(pid: int) -> bool:
    """Whether no thread of a process runs, or the process has ended."""
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*/stat"):
        try:
            state = task.read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state not in "TtXZ":
            return False
    return True


def reaped(pid: int) -> bool:
    """Reap our own child, if it is one and has ended."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return False
