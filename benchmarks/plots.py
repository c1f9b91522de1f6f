# SPDX-License-Identifier: Apache-2.0

"""Draw plots of what was measured; each shows the floor too."""

import pathlib
import textwrap

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot

from benchmarks.results import Column, Report, Row

COLOURS = {
    "plugin": "#1f6fb4",
    "in-tree": "#c8553d",
    "floor": "#6b6b6b",
    "each other host": "#1f6fb4",
    "one host": "#c8553d",
    "rbd import": "#8d8d8d",
    "qemu-img convert": "#444444",
}
STYLES = {"floor": "--"}
# The same figures make the same file, and the file's text can be searched.
matplotlib.rcParams["svg.hashsalt"] = "nova-rbd-backend"
matplotlib.rcParams["svg.fonttype"] = "none"
matplotlib.rcParams["axes.spines.top"] = False
matplotlib.rcParams["axes.spines.right"] = False
# Cases of N instances on H hosts are named "N on H".
BY_HOSTS = " on "


def draw(report: Report, path: pathlib.Path) -> None:
    """Draw one report's plot into an SVG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cases = report.cases()
    if all(BY_HOSTS in case for case in cases):
        figure = _by_hosts(report)
    elif all(case.isdigit() for case in cases):
        figure = _by_size(report)
    else:
        figure = _bars(report)
    figure.suptitle(report.title, fontsize=11)
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)


def _bars(report: Report):
    """One group of bars for each case."""
    column = report.columns[0]
    figure, axes = pyplot.subplots(figsize=(8, 3.6), layout="constrained")
    cases, sides = report.cases(), report.sides()
    width = 0.8 / len(sides)
    for i, side in enumerate(sides):
        shown = [
            (n, row)
            for n, case in enumerate(cases)
            if (row := report.find(case, side)) and row.samples
        ]
        places = [n + (i - (len(sides) - 1) / 2) * width for n, _ in shown]
        medians = [row.median(column.key) for _, row in shown]
        bars = axes.bar(
            places,
            medians,
            width,
            label=side,
            color=COLOURS.get(side),
            yerr=_errors([row for _, row in shown], column),
            error_kw={"elinewidth": 1},
        )
        axes.bar_label(bars, fmt=_short, fontsize=7, padding=2)
    room = min(16, 96 // len(cases))
    labels = [
        textwrap.fill(case, room, break_long_words=False) for case in cases
    ]
    axes.set_xticks(range(len(cases)), labels)
    axes.tick_params(axis="x", labelsize=10 if room == 16 else 8)
    _logarithmic_y(axes)
    axes.set_ylabel(f"{column.title} (logarithmic)")
    axes.legend(frameon=False, fontsize=8)
    return figure


def _by_size(report: Report):
    """Lines over the cases, which are numbers."""
    column = report.columns[0]
    figure, axes = pyplot.subplots(figsize=(7, 3.6), layout="constrained")
    for side in report.sides():
        rows = [r for r in report.rows if r.side == side and r.samples]
        _line(axes, rows, [int(r.case) for r in rows], column, side)
    places = [int(case) for case in report.cases()]
    _logarithmic(axes, places, column)
    axes.set_xlabel(report.title.rpartition(" with ")[2].strip())
    axes.legend(frameon=False, fontsize=8)
    return figure


def _by_hosts(report: Report):
    """A panel of seconds for each number of hosts; one of bytes, if any."""
    host_counts = sorted({_split(case)[1] for case in report.cases()})
    stored = next(c for c in report.columns if c.key == "stored_mib")
    most = max(row.median(stored.key) or 0 for row in report.rows)
    count = len(host_counts) + (most > 1)
    figure, panels = pyplot.subplots(
        1, count, figsize=(11, 3.6), layout="constrained"
    )
    for axes, hosts in zip(panels, host_counts, strict=False):
        _panel(axes, report, hosts, report.columns[0])
        axes.set_title(f"{hosts} host{'s' * (hosts > 1)}", fontsize=9)
    panels[0].legend(frameon=False, fontsize=8)
    of_time = panels[: len(host_counts)]
    bottoms, tops = zip(*(a.get_ylim() for a in of_time), strict=True)
    for axes in of_time:
        axes.set_ylim(min(bottoms), max(tops))
    if most > 1:
        _panel(panels[-1], report, host_counts[0], stored)
        panels[-1].set_title(f"{host_counts[0]} host", fontsize=9)
    return figure


def _panel(axes, report: Report, hosts: int, column: Column) -> None:
    for side in report.sides():
        rows = [
            r
            for r in report.rows
            if r.side == side and r.samples and _split(r.case)[1] == hosts
        ]
        counts = [_split(row.case)[0] for row in rows]
        _line(axes, rows, counts, column, side)
    shown = {_split(case)[0] for case in report.cases()}
    _logarithmic(axes, sorted(shown), column)
    axes.set_xlabel("instances")


def _line(
    axes, rows: list[Row], places: list[int], column: Column, side: str
) -> None:
    axes.errorbar(
        places,
        [row.median(column.key) for row in rows],
        yerr=_errors(rows, column),
        label=side,
        color=COLOURS.get(side),
        linestyle=STYLES.get(side, "-"),
        marker="o",
        markersize=4,
        elinewidth=1,
    )


def _logarithmic(axes, places: list[int], column: Column) -> None:
    """Scale both axes, with plain numbers on them."""
    axes.set_xscale("log")
    axes.set_xticks(places, [str(place) for place in places])
    axes.set_xticks([], minor=True)
    _logarithmic_y(axes)
    axes.set_ylabel(column.title)


def _logarithmic_y(axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    low, high = axes.get_ylim()
    # If the axis has about one decade, label its minor ticks too.
    axes.yaxis.set_minor_formatter("{x:g}" if high < 12 * low else "")
    axes.tick_params(which="minor", labelsize=7)


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _errors(rows: list[Row], column: Column) -> list[list[float]]:
    """Error bars that reach down to the least and up to the most."""
    below, above = [], []
    for row in rows:
        median, ends = row.median(column.key), row.ends(column.key)
        assert median is not None
        assert ends is not None
        below.append(median - ends[0])
        above.append(ends[1] - median)
    return [below, above]


def _split(case: str) -> tuple[int, int]:
    count, _, hosts = case.partition(BY_HOSTS)
    return int(count), int(hosts)
