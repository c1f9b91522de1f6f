# SPDX-License-Identifier: Apache-2.0

"""Tell how a worker of pytest-xdist died, and what its threads did then."""

import faulthandler
import pathlib
import subprocess
from typing import Any

import pytest

from tests.testbed import paths

# The pipe of a dead worker is closed before its process has ended.
_END_SECONDS = 5


class Recorded:
    """Has this worker write its threads' stacks to a file when it dies.

    The error output, to which pytest has them written, is far above the
    summary, and captured while a test runs.
    """

    def __init__(self, config: Any) -> None:
        self._path = _record(config.workerinput)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("w")
        faulthandler.enable(self._file)

    def pytest_unconfigure(self) -> None:
        faulthandler.disable()
        self._file.close()
        self._path.unlink()


class Told:
    """Adds what is known to the report of the test that a worker died in."""

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, report: Any) -> None:
        worker = report.node
        report.sections += [
            ("how the worker ended", _end(worker.gateway._io.popen)),
            ("what its threads did", _stacks(_record(worker.workerinput))),
        ]


def _record(workerinput: dict[str, Any]) -> pathlib.Path:
    name = "{workerid}-{testrunuid}.txt".format(**workerinput)
    return paths.cache() / "crashes" / name


def _end(process: subprocess.Popen[bytes]) -> str:
    try:
        code = process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        return f"pid {process.pid} has not ended"
    how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
    return f"pid {process.pid} ended {how}"


def _stacks(record: pathlib.Path) -> str:
    text = record.read_text() if record.exists() else ""
    record.unlink(missing_ok=True)
    # librados blocks all signals in its threads.
    return text or (
        "unknown: it wrote nothing, as after SIGKILL, or a crash in a thread "
        "of Ceph's libraries (look for 'segfault' in dmesg)"
    )
