# SPDX-License-Identifier: Apache-2.0

"""What is told of a worker that died; see tests/crashes.py."""

import subprocess
import sys

import pytest

from tests.testbed import paths

CONFTEST = """
import pytest
from tests import crashes

@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    if hasattr(config, "workerinput"):
        config.pluginmanager.register(crashes.Recorded(config))
    else:
        config.pluginmanager.register(crashes.Told())
"""
FILE = """
import os, signal

def deadly_step():
    os.kill(os.getpid(), signal.{name})

def test():
    deadly_step()
"""


@pytest.mark.parametrize(
    ("name", "number", "told"),
    [("SIGABRT", 6, "in deadly_step"), ("SIGKILL", 9, "it wrote nothing")],
)
def test_death_of_a_worker_is_explained(tmp_path, name, number, told):
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(FILE.format(name=name))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-n", "1"),
            *("-p", "no:cacheprovider", str(tmp_path)),
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=tmp_path,
        env={
            "PYTHONPATH": str(paths.CHECKOUT),
            "PATH": "/usr/bin:/bin",
            "NOVA_RBD_TESTBED_CACHE": str(tmp_path),
        },
    )
    assert f"ended by signal {number}" in done.stdout, done.stdout
    assert told in done.stdout, done.stdout
    assert not list((tmp_path / "crashes").iterdir())
