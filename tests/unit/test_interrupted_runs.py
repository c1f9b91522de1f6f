# SPDX-License-Identifier: Apache-2.0

"""A run that a signal ends stops the servers of its fixtures first."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from tests import conftest

CHECKOUT = pathlib.Path(__file__).parents[2]
RUN = """
import pathlib
import time
import pytest


@pytest.fixture(scope="session")
def server():
    try:
        say("starting")
        yield
    finally:
        say("stopping")
        pathlib.Path("stopped").touch()


def test_server(server):
    say("running")


def say(what):
    print(f"\\n{what}", flush=True)
    time.sleep(0.3)
"""


@pytest.mark.parametrize(
    ("number", "moments"),
    [
        (signal.SIGTERM, ["starting", "stopping"]),
        (signal.SIGTERM, ["running", "stopping"]),
        (signal.SIGTERM, ["stopping"]),
        (signal.SIGINT, ["stopping"]),
    ],
)
def test_servers_are_stopped(tmp_path, number, moments):
    (tmp_path / "test_run.py").write_text(RUN)
    run = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-s", "-p", conftest.__name__],
        cwd=tmp_path,
        env=os.environ
        | {"PYTHONPATH": str(CHECKOUT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    with run:
        for line in run.stdout:
            if line.strip() in moments:
                run.send_signal(number)
    assert run.returncode == pytest.ExitCode.INTERRUPTED
    assert (tmp_path / "stopped").exists()
