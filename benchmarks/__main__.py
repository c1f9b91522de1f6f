# SPDX-License-Identifier: Apache-2.0

"""Run the benchmarks: `python -m benchmarks [names]`; see --help.

Starts a throwaway Ceph, removes it again, and asserts no time.
"""

import argparse
import datetime
import importlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time
from importlib import metadata

from benchmarks import bench, goals, tables
from benchmarks.results import Report

NAMES = (
    "operations",
    "many_qcow2",
    "many_rbd",
    "pool_size",
    "children",
    "many_hosts",
    "one_base",
    "thousand_hosts",
    "snapshot_size",
    "import_speed",
    "first_boot",
    "event_loop",
)
ON_OPENSTACK = ("end_to_end",)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=", ".join(NAMES)
    )
    parser.add_argument(
        "--quick", action="store_true", help="use small sizes and few rounds"
    )
    parser.add_argument(
        "--end-to-end",
        action="store_true",
        help="also run end_to_end, on a whole OpenStack",
    )
    parser.add_argument(
        "--rounds", type=int, help="rounds, in place of each benchmark's own"
    )
    parser.add_argument(
        "--limit-gib",
        type=float,
        default=20.0,
        help="GiB that one measurement may store (default %(default)s)",
    )
    parser.add_argument(
        "--json",
        type=pathlib.Path,
        help="put the figures into this file, beside those it has of others",
    )
    parser.add_argument(
        "--shown",
        action="store_true",
        help="measure nothing; show the figures in the --json file",
    )
    parser.add_argument(
        "--plots", type=pathlib.Path, help="draw plots into this folder"
    )
    parser.add_argument(
        "--rst", type=pathlib.Path, help="write tables into this folder"
    )
    options = parser.parse_args()
    known = (*NAMES, *ON_OPENSTACK)
    for name in options.names:
        if name not in known:
            parser.error(f"no benchmark {name}; choose of {', '.join(known)}")
    if options.shown and not options.json:
        parser.error("--shown needs --json")
    return options


def chosen(options: argparse.Namespace) -> list[str]:
    names = list(options.names or NAMES)
    if options.end_to_end and "end_to_end" not in names:
        names.append("end_to_end")
    return names


def main() -> None:
    options = arguments()
    # SIGTERM cleans up as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if options.plots:
        importlib.import_module("matplotlib")  # Now, not after an hour.
    if not options.shown:
        measure(options)
    if options.json:
        show(options, load(options.json))


def measure(options: argparse.Namespace) -> None:
    names = chosen(options)
    on_ceph = [name for name in names if name in NAMES]
    # Each benchmark gets a new cluster, without another's leftovers.
    groups = [on_ceph] if options.quick else [[name] for name in on_ceph]
    for group in filter(None, groups):
        with bench.on_throwaway_ceph(
            options.quick, options.rounds, options.limit_gib
        ) as surroundings:
            for name in group:
                module = importlib.import_module(f"benchmarks.{name}")
                told(with_conditions(module.run, surroundings), options)
    for name in names:
        if name in ON_OPENSTACK:
            module = importlib.import_module(f"benchmarks.{name}")
            told(with_conditions(module.run, options), options)


def with_conditions(work, given) -> Report:
    """Run a benchmark; add the machine's conditions to its report."""
    begun = datetime.datetime.now(datetime.UTC)
    load, begin = os.getloadavg()[0], time.monotonic()
    report = work(given)
    report.arrange()
    report.conditions = {
        "begun": begun.strftime("%Y-%m-%d %H:%M UTC"),
        "seconds": time.monotonic() - begin,
        "load_before": load,
        "load_after": os.getloadavg()[0],
        "cores": os.cpu_count(),
        "nova": metadata.version("nova"),
        "ceph": ceph_version(),
        "commit": commit(),
        "quick": given.quick,
    }
    return report


def commit() -> str:
    """The checkout's commit, with "-dirty" if its code was changed."""
    name = git("rev-parse", "--short", "HEAD")
    changed = git("status", "--porcelain", "--", ".", ":!doc")
    return (f"{name}-dirty" if changed else name) or "unknown"


def git(*words: str) -> str:
    """Return what git prints; "" without git, or outside of a repository."""
    if shutil.which("git") is None:
        return ""
    shown = subprocess.run(
        ["git", "-C", str(pathlib.Path(__file__).parents[1]), *words],
        capture_output=True,
        text=True,
        check=False,
    )
    return shown.stdout.strip()


def ceph_version() -> str:
    shown = subprocess.run(
        ["ceph-osd", "--version"], capture_output=True, text=True, check=True
    )
    return shown.stdout.split()[2]  # ceph version 16.2.15 (...


def told(report: Report, options: argparse.Namespace) -> None:
    """Print one report, and save it in the --json file."""
    print(f"\n{tables.text(report)}\n", flush=True)
    if options.json:
        found = {}
        if options.json.exists():
            found = json.loads(options.json.read_text())
        found[report.name] = report.to_json()
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def load(path: pathlib.Path) -> list[Report]:
    found = json.loads(path.read_text())
    return [
        Report.from_json(found[name])
        for name in (*NAMES, *ON_OPENSTACK)
        if name in found
    ]


def show(options: argparse.Namespace, reports: list[Report]) -> None:
    """Draw and write the reports, and compare them with the goals."""
    reached = goals.rows({report.name: report for report in reports})
    print("\n".join(tables.columns(reached)))
    if options.rst:
        options.rst.mkdir(parents=True, exist_ok=True)
        path = options.rst / "goals.inc"
        path.write_text(tables.list_table("Goals", reached))
    for report in reports:
        if options.shown:
            print(f"\n{tables.text(report)}\n")
        if options.rst:
            path = options.rst / f"{report.name}.inc"
            path.write_text(tables.rst(report))
        if options.plots:
            from benchmarks import plots

            plots.draw(report, options.plots / f"{report.name}.svg")


if __name__ == "__main__":
    main()
