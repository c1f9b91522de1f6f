# SPDX-License-Identifier: Apache-2.0

"""How long the tests take: by suite, by worker, and the slowest of them.

With ``--durations N`` pytest prints the minutes after a run, and with
``--durations-file PATH`` it keeps the figures, as tools/test.sh does. ``python
-m tests.durations [PATH]`` prints such a file as the tables of
doc/source/developing.rst.
"""

import collections
import json
import pathlib
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from tests.testbed import paths

KEPT = paths.CHECKOUT / ".testbed/durations.json"
SLOWEST = 20
# The lane of tests that no worker of pytest-xdist has run.
ALONE = "main"


class Durations:
    """Adds up the seconds of each test, its fixtures included.

    :param shown: whether to print the minutes after the run
    :param path: where to keep the figures then
    """

    def __init__(self, terminal: Any, shown: bool, path: str | None):
        self._terminal = terminal
        self._shown = shown
        self._path = pathlib.Path(path) if path else None
        self._seconds: collections.Counter[tuple[str, str]] = (
            collections.Counter()
        )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        lane = getattr(report, "worker_id", ALONE)
        self._seconds[report.nodeid, lane] += report.duration

    def pytest_terminal_summary(self) -> None:
        found = [
            {"test": test, "lane": lane, "seconds": round(seconds, 2)}
            for (test, lane), seconds in self._seconds.items()
        ]
        if self._shown:
            self._terminal.section("minutes by suite")
            for line in table(by_suite(found)):
                self._terminal.write_line(line)
        if self._path:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(json.dumps(found, indent=1))


def by_suite(found: Iterable[dict[str, Any]]) -> list[Sequence[str]]:
    """Return the rows of a table: a suite's tests, and minutes in each lane.

    A suite is a folder in tests/.
    """
    found = list(found)
    lanes = sorted({each["lane"] for each in found})
    suites = list(dict.fromkeys(_suite(each["test"]) for each in found))
    rows: list[Sequence[str]] = [("suite", "tests", *lanes, "minutes")]
    for suite in (*sorted(suites), "all"):
        mine = [e for e in found if suite in (_suite(e["test"]), "all")]
        minutes = [
            sum(e["seconds"] for e in mine if e["lane"] == lane) / 60
            for lane in lanes
        ]
        tests = str(len({e["test"] for e in mine}))
        figures = (f"{each:.1f}" for each in (*minutes, sum(minutes)))
        rows.append((suite, tests, *figures))
    return rows


def slowest(found: Iterable[dict[str, Any]]) -> list[Sequence[str]]:
    """Return the rows of a table: the slowest tests, and their seconds."""
    most = sorted(found, key=lambda each: -float(each["seconds"]))[:SLOWEST]
    rows = [(e["test"], f"{e['seconds']:.0f}") for e in most]
    return [("test", "seconds"), *rows]


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table in reStructuredText, its head included."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    border = "  ".join("=" * width for width in widths)
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return [border, lines[0], border, *lines[1:], border]


def _suite(test: str) -> str:
    return test.split("/")[1] if test.count("/") > 1 else "tests"


def main(path: str = str(KEPT)) -> None:
    """Print what the tests took as tables for the documentation."""
    found = json.loads(pathlib.Path(path).read_text())
    print(*table(by_suite(found)), "", *table(slowest(found)), sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
