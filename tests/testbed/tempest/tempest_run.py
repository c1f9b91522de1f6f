# SPDX-License-Identifier: Apache-2.0

"""Run Tempest in a folder of its own and read what it says of each test."""

import contextlib
import dataclasses
import os
import pathlib
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence

from tests.testbed.process import TestbedError

LIST_SECONDS = 120
TEST_SECONDS = 1200
RUN_SECONDS = 3 * 3600
# As subunit-trace has it (python-subunit 1.4): {worker} name [seconds] ...
LINE = re.compile(
    r"\{\d+\} (?P<name>.+?)(?: \[(?P<seconds>[\d.]+)s[^]]*\])? \.\.\. "
    r"(?P<outcome>ok|FAILED|SKIPPED)(?:: (?P<reason>.*))?$"
)
SHOWN_LINES = 8


@dataclasses.dataclass
class Result:
    """One test, or a class's setUpClass or tearDownClass.

    :ivar outcome: 'ok', 'FAILED' or 'SKIPPED'
    :ivar said: what Tempest wrote after it, traceback and requests
    """

    name: str
    seconds: float
    outcome: str
    reason: str
    said: list[str] = dataclasses.field(default_factory=list)

    @property
    def short(self) -> str:
        """The name without the prefix that all tests have in common."""
        return self.name.replace("tempest.api.compute.", "")

    def last_lines(self) -> list[str]:
        """The end of the traceback."""
        lines = [line.rstrip() for line in self.said if line.strip()]
        heads = [n for n, x in enumerate(lines) if x.startswith("Captured ")]
        for begin, end in zip(heads, [*heads[1:], len(lines)], strict=True):
            if lines[begin] == "Captured traceback:":
                return [*map(_shown, lines[begin + 2 : end][-SHOWN_LINES:])]
        return [*map(_shown, lines[:SHOWN_LINES])]


class Tempest:
    """The ``tempest`` of a virtual environment, in ``folder``.

    :param folder: has tempest.conf; Tempest's own files are kept there
    """

    def __init__(self, venv: pathlib.Path, folder: pathlib.Path):
        self._venv = venv
        self._folder = folder

    def tests(self, *selection: str) -> list[str]:
        """Names of the tests that the options of ``tempest run`` select.

        :raises TestbedError: Tempest fails, as with a broken regex
        """
        if not (self._folder / ".stestr").exists():
            # ``tempest run`` makes this folder only if it does not list.
            self._ask([str(self._venv / "bin/stestr"), "init"])
        lines = self._ask(self._command("--list-tests", *selection))
        return [x.split("[")[0] for x in lines if x.startswith("tempest.")]

    def run(
        self, log: pathlib.Path, workers: int, *selection: str
    ) -> list[Result]:
        """Run the selected tests; print a line for each as it ends.

        :param log: gets all that Tempest writes
        :raises TestbedError: Tempest itself failed or took too long
        """
        results: list[Result] = []
        command = self._command(f"--concurrency={workers}", *selection)
        with log.open("w") as out, self._started(command) as child:
            for line in child.stdout or ():
                out.write(line)
                out.flush()
                if match := LINE.match(line):
                    results.append(_result(match))
                    _show(results[-1])
                elif results:
                    results[-1].said.append(line)
        failed = any(result.outcome == "FAILED" for result in results)
        # Exit code 1 is for failed tests. Any other code, or 1 without a
        # failed test, means that the run itself failed.
        if not results or child.returncode != int(failed):
            raise TestbedError(
                f"tempest run: exit code {child.returncode} after "
                f"{len(results)} results, see {log}"
            )
        return results

    def _ask(self, command: Sequence[str]) -> list[str]:
        """What a short command prints."""
        done = subprocess.run(
            command,
            cwd=self._folder,
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=LIST_SECONDS,
        )
        if done.returncode:
            raise TestbedError(
                f"{' '.join(command)}: exit code {done.returncode}:\n"
                f"{done.stdout[-500:]}{done.stderr[-1500:]}"
            )
        return done.stdout.splitlines()

    def _command(self, *options: str) -> Sequence[str]:
        program = str(self._venv / "bin/tempest")
        return [program, "run", "--config-file=tempest.conf", *options]

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": f"{self._venv}/bin:{os.environ['PATH']}",
            "HOME": str(self._folder),
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            "OS_TEST_TIMEOUT": str(TEST_SECONDS),
        }

    @contextlib.contextmanager
    def _started(
        self, command: Sequence[str]
    ) -> Iterator["subprocess.Popen[str]"]:
        """Run it as a process group that does not outlive the block."""
        child = subprocess.Popen(
            command,
            cwd=self._folder,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )

        def end() -> None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)

        limit = threading.Timer(RUN_SECONDS, end)
        limit.start()
        try:
            yield child
        except BaseException:
            end()
            raise
        finally:
            child.wait()
            limit.cancel()


def _shown(line: str) -> str:
    """The line, or both ends of a long line, whose end tells the cause."""
    return line if len(line) < 500 else f"{line[:200]} [...] {line[-280:]}"


def _result(match: re.Match[str]) -> Result:
    return Result(
        match["name"].split("[")[0],
        float(match["seconds"] or 0),
        match["outcome"],
        match["reason"] or "",
    )


def _show(result: Result) -> None:
    now = time.strftime("%H:%M:%S")
    print(
        f"{now} {result.outcome:7} {result.seconds:6.1f} s {result.short}",
        flush=True,
    )
