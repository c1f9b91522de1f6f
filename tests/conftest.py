# SPDX-License-Identifier: Apache-2.0

"""Share the tests out between two workers; print what they measure."""

import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.durations import Durations

_TOLD = "told"
# Takes as long as all of tests/functional. It runs in their worker, on an
# OpenStack of its own, so that both workers end at about the same time.
APART = "tests/e2e/virt/test_killed.py"

Tell = Callable[[str], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--durations-file", help="keep the seconds of each test in this file"
    )


def pytest_itemcollected(item: pytest.Item) -> None:
    """Give the mark ``quick`` to the two suites that run in a minute."""
    if item.nodeid.startswith(("tests/unit/", "tests/contract/")):
        item.add_marker("quick")


# The reporter of the terminal registers itself in this hook too.
@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Print what tests tell; stop all servers on SIGTERM, as on Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if config.pluginmanager.hasplugin("dsession"):
        from xdist.workermanage import NodeManager

        # Seconds that an interrupted worker has to stop its OpenStack.
        NodeManager.EXIT_TIMEOUT = 60
    terminal = config.pluginmanager.getplugin("terminalreporter")
    if terminal and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Shown(terminal))
        shown = config.getoption("durations") is not None
        path = config.getoption("durations_file")
        config.pluginmanager.register(Durations(terminal, shown, path))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the tests of one OpenStack together, and those of one file.

    With ``-n 2`` one worker runs tests/e2e, except the file APART, while the
    other worker runs all other tests: the first mostly waits for guests, the
    second computes. (Marks can't do this with pytest-xdist 3.8 and pytest
    9.2.)
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
    """Print what a test has measured, to whoever runs the tests."""

    def say(text: str) -> None:
        record_property(_TOLD, text)

    return say


class _Shown:
    """Prints what each test told, below the line of its result."""

    def __init__(self, terminal: Any) -> None:
        self._terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "teardown":
            return
        for name, value in report.user_properties:
            if name == _TOLD:
                self._terminal.write_line(f"    {value}")
