# SPDX-License-Identifier: Apache-2.0

"""How the tests are shared out between the workers; see tests/conftest.py."""

import subprocess
import sys

import pytest

from tests.testbed import paths

CONFTEST = "from tests.conftest import pytest_xdist_make_scheduler"
# The first file takes longest, so the other worker has all that follow.
FILE = """
import os, pathlib, time
import pytest

@pytest.mark.parametrize("number", range(4))
def test(number):
    if ("{name}", number) in {crashing}:
        os._exit(1)
    time.sleep({seconds})
"""


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("name", ["a", "c"])
def test_crash_of_a_worker_costs_one_test(tmp_path, name, number):
    """All other tests run, once, and the run ends."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    for file in "abc":
        (tmp_path / f"test_{file}.py").write_text(
            FILE.format(
                name=file,
                crashing={(name, number)},
                seconds=0.2 if file == "a" else 0,
            )
        )
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-n", "2", "-v"),
            *("--no-loadscope-reorder", "-p", "no:cacheprovider"),
            str(tmp_path),
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=tmp_path,
        env={"PYTHONPATH": str(paths.CHECKOUT), "PATH": "/usr/bin:/bin"},
    )
    assert "= 1 failed, 11 passed in" in done.stdout, done.stdout
    assert done.stdout.count("replacing crashed worker") == 1
