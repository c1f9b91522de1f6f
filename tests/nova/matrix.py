# SPDX-License-Identifier: Apache-2.0

"""Run Nova's own tests with our backend, for each release of Nova.

Prints the table of doc/source/conformance.rst. Each release has a venv of the
testbed (tests/testbed/constraints-<version>.txt), which is made first if it is
missing. tools/matrix.sh runs our own tests.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import time

from tests.matrix import table
from tests.nova.in_tree import run, suites
from tests.testbed import versions

CHECKOUT = pathlib.Path(__file__).parents[2]
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
LIMIT_SECONDS = 2 * 3600


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


def judged(python, release, suite, threading):
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
    major = int(release.split(".")[0])
    for suite in (suite for suite in suites.SUITES if suite in wanted):
        for threading in suites.threadings(suite, major):
            started = time.monotonic()
            counts = judged(python, release, suite, threading)
            seconds = round(time.monotonic() - started)
            yield threading, suite, *counts, seconds


def main():
    parser = argparse.ArgumentParser(prog="tools/nova_matrix.sh")
    known = versions.known()
    parser.add_argument("--release", action="append", choices=known)
    parser.add_argument(
        "--suite", action="append", choices=list(suites.SUITES)
    )
    asked = parser.parse_args()
    print(table.head(COLUMNS))
    failures = 0
    for release in asked.release or known:
        for cells in rows(release, asked.suite or suites.SUITES):
            print(table.line(COLUMNS, (release, *cells)), flush=True)
            failures += cells[3]
    print(table.border(COLUMNS))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
