# SPDX-License-Identifier: Apache-2.0

"""A plugin of pytest that tells coverage which test runs.

Processes that a test starts know it by PYTEST_CURRENT_TEST, which pytest sets
and covering.CONFIG reads. They are given the file with that configuration;
coverage's patch "subprocess" would give them what this process has read.
"""

import json
import os
import pathlib
from collections.abc import Generator

import coverage
import pytest

FILE = "NOVA_RBD_MUTANTS_SECONDS"
CONFIG = "NOVA_RBD_MUTANTS_COVERAGERC"


def pytest_configure() -> None:
    os.environ["COVERAGE_PROCESS_START"] = os.environ[CONFIG]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, None, None]:
    measuring = coverage.Coverage.current()
    assert measuring, "run by covering.record"
    measuring.switch_context(item.nodeid)
    try:
        return (yield)
    finally:
        measuring.switch_context("")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    with pathlib.Path(os.environ[FILE]).open("a") as file:
        found = (report.nodeid, report.when, report.outcome, report.duration)
        print(json.dumps(found), file=file)
