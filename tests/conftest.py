# SPDX-License-Identifier: Apache-2.0

"""Two lanes for pytest-xdist, and a voice for the tests in either."""

import signal
from collections.abc import Callable
from typing import Any

import pytest

_TOLD = "told"
# As long as all of tests/functional; with an OpenStack of its own the two
# workers end at about the same time.
APART = "tests/e2e/virt/test_killed.py"

Tell = Callable[[str], None]


def pytest_configure(config: pytest.Config) -> None:
    """Show what tests tell; let SIGTERM end all servers, as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if config.pluginmanager.hasplugin("dsession"):
        from xdist.workermanage import NodeManager

        # What workers have, when they are interrupted, to end an OpenStack.
        NodeManager.EXIT_TIMEOUT = 60
    terminal = config.pluginmanager.getplugin("terminalreporter")
    if terminal and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Shown(terminal))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the tests of one OpenStack together, and those of one file.

    With ``-n 2`` one worker has tests/e2e, but for the file below, while the
    other one runs all the rest: what waits for guests beside what computes.
    (pytest-xdist 3.8 can't do it by marks with pytest 9.2.)
    """
    from xdist.scheduler import LoadScopeScheduling

    class Lanes(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            with_others = file.startswith("tests/e2e/") and file != APART
            return "e2e" if with_others else file

    return Lanes(config, log)


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Tell:
    """Say what was measured to whoever runs the tests."""

    def say(text: str) -> None:
        record_property(_TOLD, text)

    return say


class _Shown:
    """Writes what the tests told below their lines."""

    def __init__(self, terminal: Any) -> None:
        self._terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "teardown":
            return
        for name, value in report.user_properties:
            if name == _TOLD:
                self._terminal.write_line(f"    {value}")
