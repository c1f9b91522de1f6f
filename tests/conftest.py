# SPDX-License-Identifier: Apache-2.0

"""Share the tests out between the workers; print what they measure.

Stop all servers, whenever the run is interrupted.
"""

import os
import signal
import threading
from collections.abc import Callable, Generator
from typing import Any

import pytest

from tests import crashes
from tests.durations import Durations

_TOLD = "told"
# The tests of tests/e2e, by the lane in which one worker runs them, on an
# OpenStack of its own; the first prefix of a file's path counts. The longest
# lane takes about as long as the whole run.
LANES = {
    "tests/e2e/virt/test_killed.py": "killed",
    "tests/e2e/virt/": "life of servers",
    "tests/e2e/": "other e2e",
}
#: Set when the run is to end soon. A teardown then only stops servers.
INTERRUPTED = threading.Event()
# What has failed first is often the cause of all that fails after it.
REPORTED_FAILURES = 3
# How long an interrupted worker may take to stop its OpenStack.
STOP_SECONDS = 60

Tell = Callable[[str], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--durations-file", help="keep the seconds of each test in this file"
    )


def pytest_itemcollected(item: pytest.Item) -> None:
    """Give the mark ``quick`` to the two suites that run in a minute."""
    if item.nodeid.startswith(("tests/unit/", "tests/contract/")):
        item.add_marker("quick")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what the clusters were doing to the report of a failed test."""
    report = yield
    if report.failed and item.session.testsfailed < REPORTED_FAILURES:
        # Without Ceph's libraries tests/unit runs too.
        from tests.support import ceph_report, clusters

        report.sections += [
            (f"Ceph in {each.folder}", ceph_report.of_ceph(each))
            for each in clusters.running
        ]
    return report


# The reporter of the terminal registers itself in this hook too.
@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Print what tests tell; end on SIGTERM as on Ctrl-C."""
    config.pluginmanager.register(_Interrupts())
    if config.pluginmanager.hasplugin("xdist"):
        from xdist.workermanage import NodeManager

        NodeManager.EXIT_TIMEOUT = STOP_SECONDS
    if hasattr(config, "workerinput"):
        from execnet.gateway_base import WorkerGateway

        WorkerGateway._terminate_execution = _stop_worker
        config.pluginmanager.register(crashes.Recorded(config))
    else:
        config.pluginmanager.register(crashes.Told())
    terminal = config.pluginmanager.getplugin("terminalreporter")
    if terminal and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Shown(terminal))
        shown = config.getoption("durations") is not None
        path = config.getoption("durations_file")
        config.pluginmanager.register(Durations(terminal, shown, path))


def _stop_worker(gateway: Any) -> None:
    """Interrupt this worker, and give it time to stop its servers.

    execnet 2.1 would wait for 10 s and then call os._exit().
    """
    gateway._execpool.trigger_shutdown()
    if not gateway._execpool.waitall(5):
        os.kill(os.getpid(), signal.SIGINT)
        gateway._execpool.waitall(STOP_SECONDS)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the tests of one OpenStack together, and those of one file.

    The lanes of tests/e2e begin first, one in each of three workers. The
    workers of the shorter ones go on with all other suites, which compute
    while the longest lane mostly waits for guests. (Marks can't do this with
    pytest-xdist 3.8 and pytest 9.2.)
    """
    from xdist.scheduler import LoadScopeScheduling

    class Lanes(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            for prefix, lane in LANES.items():
                if nodeid.startswith(prefix):
                    return lane
            return nodeid.partition("::")[0]

        def remove_node(self, node: Any) -> str | None:
            """Forget a worker; return the test that has crashed it.

            pytest-xdist 3.8 would run that test again, and would give all
            files of this worker to the next one, which waits for ever if it
            begins with one that is done.
            """
            units = self.assigned_work[node]
            left = [
                (unit, nodeid)
                for unit in units.values()
                for nodeid, completed in unit.items()
                if not completed
            ]
            for unit, nodeid in left[:1]:
                unit[nodeid] = True
            self.assigned_work[node] = {
                scope: unit
                for scope, unit in units.items()
                if not all(unit.values())
            }
            super().remove_node(node)
            return left[0][1] if left else None

    return Lanes(config, log)


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Tell:
    """Print what a test has measured, to whoever runs the tests."""

    def say(text: str) -> None:
        record_property(_TOLD, text)

    return say


class _Interrupts:
    """Interrupts the run on the first signal, but not during a teardown.

    A fixture that was interrupted while it stopped its servers would leave
    them. A further signal would do so, too: pytest stops servers after the
    first one, and execnet sends a second one 5 s later.
    """

    def __init__(self) -> None:
        self._busy = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._interrupt)

    def _interrupt(self, number: int, frame: object) -> None:
        if not INTERRUPTED.is_set():
            INTERRUPTED.set()
            if not self._busy:
                raise KeyboardInterrupt

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self) -> Generator[None]:
        asked, self._busy = INTERRUPTED.is_set(), True
        try:
            yield
        finally:
            self._busy = False
            if INTERRUPTED.is_set() and not asked:
                raise KeyboardInterrupt

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self) -> Generator[None]:
        self._busy = True
        yield


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
