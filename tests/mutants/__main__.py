# SPDX-License-Identifier: Apache-2.0

"""``tools/mutants.sh``: see which faults in the product no test notices."""

import argparse
import concurrent.futures
import pathlib
import queue
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from tests.mutants import covering, trying
from tests.mutants.mutations import Mutant, mutants
from tests.testbed import paths

PRODUCT = "nova_rbd_backend"


def main() -> int:
    asked = _arguments()
    if asked.record is not None:
        covering.record(asked.record)
        return 0
    chosen = choose(asked.path, asked.base)
    covered = covering.load()
    if not covered.seconds:
        print("record first which tests run which lines: --record")
        return 1
    known = {
        key
        for key, result in trying.results().items()
        if result.outcome == "killed" or not asked.again
    }
    left = [
        mutant
        for mutant in chosen
        if mutant.key not in known and _tests(mutant, covered)
    ]
    # An interrupted or limited run has tried some in each part of the code.
    random.Random(0).shuffle(left)
    print(f"{len(chosen)} mutants, {len(left)} of them to be tried")
    if not asked.list:
        _try(left, covered, asked)
    _tell(chosen, covered, asked.list)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/mutants.sh", description=__doc__
    )
    parser.add_argument(
        "path",
        nargs="*",
        help="files or folders of the product; without, the changed lines",
    )
    parser.add_argument(
        "--record",
        nargs="*",
        metavar="TESTS",
        help="run tests, and record which lines each of them runs",
    )
    parser.add_argument(
        "--base", default="main", help="lines changed since then (main)"
    )
    parser.add_argument("--list", action="store_true", help="try none")
    parser.add_argument(
        "--again", action="store_true", help="try known survivors again"
    )
    parser.add_argument("--minutes", type=float, help="stop after that time")
    parser.add_argument(
        "--seconds",
        type=float,
        default=120,
        help="of tests for one mutant (120); the slowest tests are left out",
    )
    parser.add_argument("--jobs", type=int, default=2, help="at once (2)")
    return parser.parse_args()


def choose(wanted: Sequence[str], base: str) -> list[Mutant]:
    """Return the mutants of files and folders, or of the changed lines."""
    if not wanted:
        diff = ("git", "diff", "-U0", base, "--", PRODUCT)
        done = subprocess.run(
            diff, cwd=paths.CHECKOUT, check=True, stdout=subprocess.PIPE
        )
        changed = changed_lines(done.stdout.decode())
        return [
            mutant
            for path, lines in changed.items()
            for mutant in mutants(path, _source(path), lines)
        ]
    found = []
    for name in wanted:
        path = pathlib.Path(name).absolute()
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            inside = str(file.relative_to(paths.CHECKOUT))
            found += mutants(inside, _source(inside))
    return found


def changed_lines(diff: str) -> dict[str, set[int]]:
    """Return the lines that a ``git diff -U0`` adds, by file."""
    found: dict[str, set[int]] = {}
    for line in diff.splitlines():
        if line.startswith("+++ "):
            path = line.removeprefix("+++ ").removeprefix("b/")
        elif hunk := re.match(r"@@ \S+ \+(\d+)(?:,(\d+))? @@", line):
            begin, count = int(hunk[1]), int(hunk[2] or 1)
            if count and path.endswith(".py"):
                found.setdefault(path, set()).update(
                    range(begin, begin + count)
                )
    return found


def within(
    tests: Sequence[str], seconds: dict[str, float], limit: float
) -> list[str]:
    """Return the first of these tests that take no longer than the limit."""
    chosen, total = [], 0.0
    for test in tests:
        total += seconds.get(test, 0)
        if chosen and total > limit:
            break
        chosen.append(test)
    return chosen


def _tests(mutant: Mutant, covered: covering.Covering) -> list[str]:
    lines = range(mutant.first_line, mutant.last_line + 1)
    return covered.tests(mutant.path, lines)


def _try(
    left: Sequence[Mutant],
    covered: covering.Covering,
    asked: argparse.Namespace,
) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    end = time.monotonic() + asked.minutes * 60 if asked.minutes else None
    lanes: queue.SimpleQueue[trying.Lane] = queue.SimpleQueue()
    opened = [trying.Lane(number) for number in range(asked.jobs)]
    for lane in opened:
        lane.open()
        lanes.put(lane)
    existing = opened[0].collected()
    interrupted = threading.Event()

    def attempt(mutant: Mutant) -> None:
        if interrupted.is_set() or (end and time.monotonic() > end):
            return
        found = [test for test in _tests(mutant, covered) if test in existing]
        tests = within(found, covered.seconds, asked.seconds)
        lane = lanes.get()
        try:
            seconds = sum(covered.seconds[test] for test in tests)
            result = lane.attempt(mutant, tests, seconds)
        finally:
            lanes.put(lane)
        if interrupted.is_set():  # its tests may have failed for that
            return
        trying.keep(result)
        place = f"{mutant.path}:{mutant.first_line}"
        print(
            f"{result.outcome:12} {place} {mutant.what} {result.by} "
            f"({result.tests} of {len(found)} tests, {result.seconds} s)",
            flush=True,
        )

    pool = concurrent.futures.ThreadPoolExecutor(asked.jobs)
    try:
        list(pool.map(attempt, left))
    except KeyboardInterrupt:
        interrupted.set()
        print("interrupted; the same command goes on from here")
    finally:
        for lane in opened:
            lane.stop()
        pool.shutdown(cancel_futures=True)
        for lane in opened:
            lane.close()


def _tell(
    chosen: Sequence[Mutant], covered: covering.Covering, names_all: bool
) -> None:
    """Print the survivors, and how many there are in each file."""
    known = trying.results()
    counts: dict[str, dict[str, int]] = {}
    for mutant in chosen:
        if result := known.get(mutant.key):
            outcome = result.outcome
        else:
            outcome = "not tried" if _tests(mutant, covered) else "not covered"
        of_file = counts.setdefault(mutant.path, {})
        of_file[outcome] = of_file.get(outcome, 0) + 1
        if outcome in ("survived", "not covered") or names_all:
            place = f"{mutant.path}:{mutant.first_line}"
            print(f"\n{place}: {outcome}: {mutant.what}")
            print(mutant.diff(_source(mutant.path)))
    print()
    for path, outcomes in counts.items():
        told = (f"{count} {outcome}" for outcome, count in outcomes.items())
        print(f"{path}: {', '.join(sorted(told))}")


def _source(path: str) -> str:
    return (paths.CHECKOUT / path).read_text()


if __name__ == "__main__":
    sys.exit(main())
