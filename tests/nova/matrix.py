# SPDX-License-Identifier: Apache-2.0

"""Run Nova's own tests and tests/nova for each release of Nova.

Prints the table of doc/source/conformance.rst. Each release has a venv of the
testbed (tests/testbed/constraints-<version>.txt), which is made first if it is
missing.
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys
import time

from tests.nova.in_tree import run, suites

CHECKOUT = pathlib.Path(__file__).parents[2]
CONSTRAINTS = CHECKOUT / "tests/testbed"
# The suite tests/nova, which runs on a real Ceph.
OURS = "ours"
COLUMNS = (
    ("Nova", 8),
    ("threads", 9),
    ("suite", 10),
    ("passed", 6),
    ("failed", 6),
    ("not applicable", 14),
    ("skipped by Nova", 15),
    ("seconds", 7),
)
LIMIT_SECONDS = 3600


def releases():
    """Return the releases that have constraints, oldest first."""
    found = CONSTRAINTS.glob("constraints-*.txt")
    names = [path.stem.removeprefix("constraints-") for path in found]
    return sorted(names, key=lambda name: [int(n) for n in name.split(".")])


def install(release):
    """Make the release's venv, and return its Python."""
    environment = {**os.environ, "NOVA_VERSION": release}
    command = ["/usr/bin/python3", "-m", "tests.testbed"]
    subprocess.run(
        [*command, "install"],
        cwd=CHECKOUT,
        env=environment,
        stdout=sys.stderr,
        check=True,
    )
    return str(CHECKOUT / f".testbed/venv-nova-{release}/bin/python")


def run_ours(python):
    """Run tests/nova without Nova's own tests.

    :returns: passed, failed and skipped
    """
    done = subprocess.run(
        [
            python,
            *("-m", "pytest", "-q", "tests/nova"),
            "--ignore=tests/nova/test_in_tree.py",
        ],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )
    counts = dict.fromkeys(("passed", "failed", "error", "skipped"), 0)
    closing = done.stdout.strip().rpartition("\n")[2]
    for number, what in re.findall(r"(\d+) (\w+)", closing):
        counts[what.removesuffix("s")] = int(number)
    if done.returncode:
        print(done.stdout[-5000:], file=sys.stderr)
    failed = counts["failed"] + counts["error"]
    return counts["passed"], failed or done.returncode, counts["skipped"]


def run_novas(python, release, suite, threading):
    """Run one of Nova's suites.

    :returns: passed, failed, not applicable and skipped
    """
    found = run.run(suite, threading, python, LIMIT_SECONDS)
    verdict = run.judge(found, int(release.split(".")[0]))
    for test, story in verdict.failed.items():
        print(f"\n{test}\n{story}", file=sys.stderr)
    return tuple(
        len(part)
        for part in (
            verdict.passed,
            verdict.failed,
            verdict.not_applicable,
            verdict.skipped,
        )
    )


def rows(release, wanted):
    """Yield the cells of each row of one release."""
    python = install(release)
    for suite in suites.SUITES:
        if suite not in wanted:
            continue
        for threading in suites.threadings(suite, int(release.split(".")[0])):
            started = time.monotonic()
            counts = run_novas(python, release, suite, threading)
            yield threading, suite, *counts, _since(started)
    if OURS in wanted:
        started = time.monotonic()
        passed, failed, skipped = run_ours(python)
        yield "native", OURS, passed, failed, 0, skipped, _since(started)


def _since(started):
    return round(time.monotonic() - started)


def line(cells):
    pairs = zip(cells, COLUMNS, strict=True)
    cells = (str(cell).ljust(width) for cell, (_, width) in pairs)
    return "  ".join(cells).rstrip()


def main():
    parser = argparse.ArgumentParser(prog="tools/nova_matrix.sh")
    known = (*suites.SUITES, OURS)
    parser.add_argument("--release", action="append", choices=list(releases()))
    parser.add_argument("--suite", action="append", choices=known)
    asked = parser.parse_args()
    border = line("=" * width for _, width in COLUMNS)
    print(border, line(name for name, _ in COLUMNS), border, sep="\n")
    failures = 0
    for release in asked.release or releases():
        for cells in rows(release, asked.suite or known):
            print(line((release, *cells)), flush=True)
            failures += cells[3]
    print(border)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
