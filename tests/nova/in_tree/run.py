# SPDX-License-Identifier: Apache-2.0

"""Run one suite in processes of its own, and judge the outcomes."""

import collections
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from tests.nova.in_tree.not_applicable import not_applicable
from tests.nova.in_tree.suites import SUITES

CHECKOUT = pathlib.Path(__file__).parents[3]
# OS_NOVA_DISABLE_EVENTLET_PATCHING: nova/monkey_patch.py, Nova 26 to 34.
THREADING = {"native": "1", "eventlet": "0"}


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The outcomes of Nova's tests, by their full names."""

    passed: list[str]
    skipped: list[str]
    not_applicable: list[str]
    failed: dict[str, str]

    def __str__(self):
        return (
            f"{len(self.passed)} passed, {len(self.failed)} failed, "
            f"{len(self.not_applicable)} not applicable, "
            f"{len(self.skipped)} skipped by Nova"
        )


def run(suite, threading, python=sys.executable, limit_seconds=1700):
    """Run all of a suite's tests.

    :returns: full name -> the outcome and, for a failure, its traceback
    :raises RuntimeError: a process failed, or took too long
    """
    with tempfile.TemporaryDirectory(prefix="nova-in-tree-") as name:
        folder = pathlib.Path(name)
        parts = [
            _Part(folder, suite, threading, python, number)
            for number in range(SUITES[suite].processes)
        ]
        end = time.monotonic() + limit_seconds
        try:
            for part in parts:
                part.wait(end)
        finally:
            for part in parts:
                part.end()
        found = {}
        for part in parts:
            found |= part.outcomes()
        return found


def judge(found, release):
    """Turn the outcomes into a verdict.

    A test that is listed as not applicable has to fail, so that the list has
    no more tests than it needs.
    """
    listed = not_applicable(release)
    sorts = collections.defaultdict(list)
    failed = {}
    for test, (outcome, story) in sorted(found.items()):
        if test in listed and outcome == "failed":
            sorts["not applicable"].append(test)
        elif test in listed:
            failed[test] = f"{outcome}, though it is listed as not applicable"
        elif outcome in ("passed", "skipped"):
            sorts[outcome].append(test)
        else:
            failed[test] = story or outcome
    for test in listed:
        if test.split(".")[2] == _package(found) and test not in found:
            failed[test] = f"listed, but not in Nova {release}"
    return Verdict(
        sorts["passed"], sorts["skipped"], sorts["not applicable"], failed
    )


def _package(found):
    """Return the package of nova.tests that the tests are in."""
    return next(iter(found), "nova.tests.none").split(".")[2]


class _Part:
    """One process, which runs its share of the suite's tests."""

    def __init__(self, folder, suite, threading, python, number):
        self._report = folder / f"{number}.json"
        self._log = folder / f"{number}.log"
        parts = SUITES[suite].processes
        words = (suite, str(number), str(parts), str(self._report))
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [python, "-m", "tests.nova.in_tree.runner", *words],
                cwd=CHECKOUT,
                env={
                    **os.environ,
                    "OS_NOVA_DISABLE_EVENTLET_PATCHING": THREADING[threading],
                    "TMPDIR": str(folder),
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait(self, end):
        try:
            code = self._process.wait(max(0, end - time.monotonic()))
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"not done in time; {self._where()}") from error
        if code:
            raise RuntimeError(
                f"exit code {code}; {self._where()}\n"
                f"{self._log.read_text(errors='replace')[-3000:]}"
            )

    def _where(self):
        outcomes = self.outcomes().items()
        begun = [test for test, (outcome, _) in outcomes if not outcome]
        return f"running: {begun or 'no test'}"

    def end(self):
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def outcomes(self):
        found = {}
        if self._report.exists():
            for line in self._report.read_text().splitlines():
                entry = json.loads(line)
                found[entry["test"]] = (entry["outcome"], entry["text"])
        return found
