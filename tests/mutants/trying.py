# SPDX-License-Identifier: Apache-2.0

"""Try faults: run the tests of each, and note whether one of them fails."""

import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from tests.mutants import covering
from tests.mutants.mutations import Mutant
from tests.mutants.tree import Tree
from tests.support import clusters
from tests.testbed import paths

RESULTS = paths.CHECKOUT / ".testbed/mutants/results.jsonl"
# On top of four times the time that the tests took when they were recorded.
STARTUP_SECONDS = 60
# Until a pytest that was told to stop has stopped its servers.
STOP_SECONDS = 60


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of a mutant.

    :param outcome: killed, survived or not covered
    :param by: the test that failed
    """

    key: str
    outcome: str
    by: str
    tests: int
    seconds: float


class Lane:
    """A copy of the checkout and its clusters; tries one fault at a time."""

    def __init__(self, number: int):
        me = f"{os.getpid()}-{number}"
        self._tree = Tree(RESULTS.parent / f"lane-{me}")
        # Short, because Unix sockets are in it.
        self._ceph = pathlib.Path(f"/tmp/mutants-{me}")
        self._process: subprocess.Popen[bytes] | None = None

    def open(self) -> None:
        self._tree.refresh()

    def stop(self) -> None:
        """Stop the tests that run now."""
        if self._process is not None:
            _stop(self._process)

    def close(self) -> None:
        """Stop the clusters, and remove the copy."""
        clusters.end_kept(self._ceph)
        shutil.rmtree(self._tree.folder, ignore_errors=True)

    def collected(self) -> set[str]:
        """Return the tests of all suites."""
        done = subprocess.run(
            [*_pytest(), "--collect-only", "-q", *covering.SUITES],
            cwd=self._tree.folder,
            env=self._tree.environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        return {line for line in done.stdout.splitlines() if "::" in line}

    def attempt(
        self, mutant: Mutant, tests: Sequence[str], seconds: float
    ) -> Result:
        """Run the tests with the fault in place, until one fails.

        :param seconds: how long the tests take without it
        """
        path = self._tree.folder / mutant.path
        source = path.read_text()
        began = time.monotonic()
        path.write_text(mutant.apply(source))
        try:
            outcome, by = self._run(tests, STARTUP_SECONDS + 4 * seconds)
        finally:
            path.write_text(source)
        clusters.empty_kept(self._ceph)
        took = round(time.monotonic() - began, 1)
        return Result(mutant.key, outcome, by, len(tests), took)

    def _run(
        self, tests: Sequence[str], limit_seconds: float
    ) -> tuple[str, str]:
        log = self._tree.folder / "pytest.out"
        with log.open("w") as out:
            self._process = subprocess.Popen(
                [*_pytest(), "-q", "-x", "--tb=no", "-rfE", *tests],
                cwd=self._tree.folder,
                env={
                    **self._tree.environment(),
                    clusters.KEPT: str(self._ceph),
                },
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._process.wait(limit_seconds)
        except subprocess.TimeoutExpired:
            _stop(self._process)
            clusters.end_kept(self._ceph)
            return "killed", f"not done after {limit_seconds:.0f} s"
        if not self._process.returncode:
            return "survived", ""
        output = log.read_text(errors="replace")
        failed = re.search(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
        return "killed", failed[1] if failed else "no test could be run"


def _pytest() -> list[str]:
    options = ("-p", "no:xdist", "-p", "no:cacheprovider")
    return [sys.executable, "-m", "pytest", *options]


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End a pytest and what it has started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, number)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                continue


def results() -> dict[str, Result]:
    """Return what is known of mutants, by their keys."""
    if not RESULTS.exists():
        return {}
    lines = RESULTS.read_text().splitlines()
    return {r.key: r for r in (Result(**json.loads(line)) for line in lines)}


def keep(result: Result) -> None:
    """Note a result, for this run and for later ones."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with RESULTS.open("a") as file:
        print(json.dumps(dataclasses.asdict(result)), file=file)
