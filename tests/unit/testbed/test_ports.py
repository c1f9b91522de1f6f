# SPDX-License-Identifier: Apache-2.0

"""Testbeds beside each other have ports of their own."""

import concurrent.futures
import socket

import pytest

from tests.testbed import ports
from tests.testbed.process import (
    Process,
    TestbedError,
    ended_at_start,
    wait_for,
)

NAMES = ("keystone", "network", "volume")


@pytest.fixture
def few(monkeypatch):
    """Leave only some ports to choose from: enough for three testbeds."""
    monkeypatch.setattr(ports, "RANGE", range(21900, 21909))


def choose(folder, name):
    path = folder / name / "ports.json"
    chosen = ports.remembered(path, NAMES, folder.glob("*/ports.json"))
    return set(chosen.values())


def test_no_port_of_another_testbed(tmp_path, few):
    """Although no daemon listens there yet."""
    with concurrent.futures.ThreadPoolExecutor() as threads:
        found = list(threads.map(lambda n: choose(tmp_path, n), "abc"))
    assert len(set().union(*found)) == 9


def test_same_ports_again(tmp_path, few):
    assert choose(tmp_path, "a") == choose(tmp_path, "a")


def test_no_port_that_is_taken(tmp_path, few):
    with socket.create_server(("127.0.0.1", 21904)):
        found = [choose(tmp_path, name) for name in "ab"]
        with pytest.raises(TestbedError, match="no free port"):
            choose(tmp_path, "c")
    assert 21904 not in set().union(*found)


def test_daemon_that_ends_at_start_is_quoted(tmp_path):
    log = tmp_path / "log"
    Process(tmp_path, "it").start(["sh", "-c", "echo no port; exit 1"], log)
    wait_for("it speaks", lambda: "no port" in log.read_text(), 30)
    assert str(ended_at_start("it", log)).endswith("\nno port")
