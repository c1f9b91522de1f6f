# SPDX-License-Identifier: Apache-2.0

"""The crowd of compute hosts, spread over some processes."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.bench import Bench
from benchmarks.hosts import Host

PROCESSES = 8
# By this time all processes have been told to begin.
HEAD_START_SECONDS = 1.0


class Crowd:
    """Processes, each of which acts as many compute hosts."""

    def __init__(self, processes: list[Host]) -> None:
        self._processes = processes

    def gather(self, count: int) -> None:
        """Have at least so many hosts, all connected."""
        self._tell_all("gather", count)
        self.answers()

    def tell(self, do: str, count: int, **arguments: Any) -> float:
        """Have all begin at one moment, and return it.

        :param count: is divided among the processes; see CrowdSide
        """
        at = time.monotonic() + HEAD_START_SECONDS
        self._tell_all(do, count, at=at, **arguments)
        return at

    def answers(self) -> list[Any]:
        return [process.answer() for process in self._processes]

    def requests(self) -> int:
        """Count the requests that all have sent to OSDs so far."""
        for process in self._processes:
            process.tell("requests")
        return sum(self.answers())

    def _tell_all(self, do: str, count: int, **arguments: Any) -> None:
        for number, process in enumerate(self._processes):
            own = len(range(number, count, len(self._processes)))
            process.tell(do, count=own, **arguments)


@contextlib.contextmanager
def crowd(bench: Bench) -> Iterator[Crowd]:
    """Lend a crowd, which ends afterwards: it takes gigabytes of memory."""
    count = bench.size(PROCESSES, 2)
    processes = [bench.host("crowd", number) for number in range(count)]
    for each in processes:
        each.wait_until_ready()
    try:
        yield Crowd(processes)
    finally:
        bench.end_hosts("crowd")
