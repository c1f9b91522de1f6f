# SPDX-License-Identifier: Apache-2.0

"""What this backend set out to reach, as ratios within one run."""

import dataclasses
from collections.abc import Callable, Mapping

from benchmarks.results import Report

Reports = Mapping[str, Report]
#: Nova's default of [image_cache] manager_interval.
PERIOD_SECONDS = 2400


@dataclasses.dataclass(frozen=True)
class Goal:
    """One goal.

    :ivar at_least: the limit is a minimum; otherwise it is a maximum
    """

    text: str
    found: Callable[[Reports], float]
    limit: float
    at_least: bool = False
    unit: str = "x"

    def cells(self, reports: Reports) -> list[str]:
        """Text, limit, what was found, whether it was reached."""
        limit = f"{'>=' if self.at_least else '<='} {self.limit:g} {self.unit}"
        try:
            value = self.found(reports)
        except LookupError:
            return [self.text, limit, "not run", "-"]
        reached = (
            (value >= self.limit) if self.at_least else (value <= self.limit)
        )
        shown = f"{value:.2f} {self.unit}"
        return [self.text, limit, shown, "yes" if reached else "no"]


def _figure(
    reports: Reports, name: str, case: str, side: str, key: str
) -> float:
    """:raises LookupError: the figure was not measured"""
    row = reports[name].find(case, side)
    value = row.median(key) if row else None
    if value is None:
        raise LookupError(name, case, side)
    return value


def _ratio(
    name: str, case: str, top: str, bottom: str, key: str
) -> Callable[[Reports], float]:
    def found(reports: Reports) -> float:
        return _figure(reports, name, case, top, key) / _figure(
            reports, name, case, bottom, key
        )

    return found


def _growth(name: str, low: str, high: str) -> Callable[[Reports], float]:
    """How many times longer the plug-in takes in ``high`` than in ``low``."""

    def found(reports: Reports) -> float:
        return _figure(reports, name, high, "plugin", "ms") / _figure(
            reports, name, low, "plugin", "ms"
        )

    return found


def _idle_requests(reports: Reports, case: str) -> float:
    return _figure(reports, "many_hosts", case, "each other host", "requests")


def _idle_growth(reports: Reports) -> float:
    return _idle_requests(reports, "100000") / _idle_requests(reports, "1000")


def _stored(case: str) -> Callable[[Reports], float]:
    """What the plug-in stores, as a ratio to what one import stores."""

    def found(reports: Reports) -> float:
        name, key = "many_qcow2", "stored_mib"
        return _figure(reports, name, case, "plugin", key) / _figure(
            reports, name, "1 on 1", "floor", key
        )

    return found


def _import_against_programs(reports: Reports) -> float:
    """The plug-in's time, as a ratio to that of the better program."""
    plugin, *programs = (
        _figure(reports, "import_speed", "raw file", side, "seconds")
        for side in ("plugin", "rbd import", "qemu-img convert")
    )
    return plugin / min(programs)


def _worst_stall(word: str) -> Callable[[Reports], float]:
    """The longest stall in all cases with this word in their names."""

    def found(reports: Reports) -> float:
        rows = [
            row
            for row in reports["event_loop"].rows
            if row.side == "plugin" and word in row.case
        ]
        return max(s["stall_ms"] for row in rows for s in row.samples)

    return found


GOALS = (
    Goal(
        "a cloned boot against the floor",
        _ratio("operations", "boot", "plugin", "floor", "ms"),
        1.3,
    ),
    Goal(
        "a cloned boot, faster than in-tree",
        _ratio("operations", "boot", "in-tree", "plugin", "ms"),
        5,
        at_least=True,
    ),
    *(
        Goal(
            f"50 instances of qcow2 on {hosts}, faster than in-tree",
            _ratio(
                "many_qcow2", f"50 on {hosts}", "in-tree", "plugin", "seconds"
            ),
            10,
            at_least=True,
        )
        for hosts in (1, 2, 4)
    ),
    *(
        Goal(
            f"50 instances of qcow2 on {hosts}, stored against one import",
            _stored(f"50 on {hosts}"),
            1.1,
        )
        for hosts in (1, 2, 4)
    ),
    Goal(
        "a delete beside 10000 images against the floor",
        _ratio("pool_size", "10000", "plugin", "floor", "ms"),
        1.5,
    ),
    Goal(
        "a delete beside 10000 images against one beside 100",
        _growth("pool_size", "100", "10000"),
        1.5,
    ),
    Goal(
        "a boot beside 20000 clones against one beside 1",
        _growth("children", "1", "20000"),
        1.5,
    ),
    Goal(
        "requests of an idle host in a period, 100000 disks against 1000",
        _idle_growth,
        1,
    ),
    Goal(
        "requests of 1000 idle hosts per second, beside 100000 disks",
        lambda reports: (
            1000 * _idle_requests(reports, "100000") / PERIOD_SECONDS
        ),
        200,
        unit="/s",
    ),
    Goal(
        "a base that 1000 hosts want at once: times made",
        lambda reports: _figure(reports, "one_base", "1000", "plugin", "made"),
        1,
    ),
    Goal(
        "a base that 1000 hosts want at once: wait beyond the maker's",
        lambda reports: _figure(reports, "one_base", "1000", "plugin", "late"),
        5,
        unit="s",
    ),
    Goal(
        "a boot beside the work of 1000 hosts against one alone",
        lambda reports: (
            _figure(reports, "thousand_hosts", "1000", "plugin", "ms")
            / _figure(reports, "thousand_hosts", "0", "plugin", "ms")
        ),
        1.1,
    ),
    Goal(
        "a snapshot of 4 GiB against the floor",
        _ratio("snapshot_size", "4096", "plugin", "floor", "ms"),
        1.5,
    ),
    Goal(
        "a snapshot of 4 GiB against one of 48 MiB",
        _growth("snapshot_size", "48", "4096"),
        1.5,
    ),
    Goal(
        "an import against the faster program",
        _import_against_programs,
        1.0,
    ),
    *(
        Goal(
            f"a first boot of {case} against the floor",
            _ratio("first_boot", case, "plugin", "floor", "seconds"),
            1.3,
        )
        for case in ("qcow2, 1 GiB", "qcow2, 4 GiB", "qcow2, 16 GiB")
    ),
    *(
        Goal(
            f"a first boot of {case} against the floor",
            _ratio("first_boot", case, "plugin", "floor", "seconds"),
            1.0,
        )
        for case in ("raw, 1 GiB", "raw, 4 GiB", "raw, 16 GiB")
    ),
    Goal(
        "local disk of a first boot of raw, 4 GiB, at most",
        lambda reports: _figure(
            reports, "first_boot", "raw, 4 GiB", "plugin", "local_peak_mib"
        ),
        4,
        unit="MiB",
    ),
    Goal(
        "a first boot of qcow2, 4 GiB, faster than in-tree",
        _ratio("first_boot", "qcow2, 4 GiB", "in-tree", "plugin", "seconds"),
        3,
        at_least=True,
    ),
    Goal(
        "local disk of a first boot of qcow2, 4 GiB, against the floor",
        _ratio(
            *("first_boot", "qcow2, 4 GiB"),
            *("plugin", "floor", "local_peak_mib"),
        ),
        1.01,
    ),
    Goal(
        "local disk of a first boot of qcow2, 4 GiB, left",
        lambda reports: _figure(
            reports, "first_boot", "qcow2, 4 GiB", "plugin", "local_left_mib"
        ),
        0,
        unit="MiB",
    ),
    Goal(
        "the longest stall of the event loop, Ceph paused",
        _worst_stall("paused"),
        50,
        unit="ms",
    ),
    Goal(
        "the longest stall of the event loop, first boot of qcow2",
        _worst_stall("qcow2"),
        50,
        unit="ms",
    ),
    Goal(
        "the longest stall of the event loop, first boot of raw",
        _worst_stall("raw"),
        50,
        unit="ms",
    ),
)


def rows(reports: Reports) -> list[list[str]]:
    """Each goal's cells, after the headings."""
    heading = ["goal", "limit", "found", "reached"]
    return [heading, *(goal.cells(reports) for goal in GOALS)]
