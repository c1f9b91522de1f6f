# SPDX-License-Identifier: Apache-2.0

import dataclasses
import subprocess
import sys

import pytest

from nova_rbd_backend.storage import process as process_


def test_zombie_does_not_live():
    """A zombie is a killed process that its parent has not waited for."""
    child = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    child.stdout.readline()
    process = process_.of_pid(child.pid)
    assert process.may_live()
    child.kill()
    while "Z" not in _state(child.pid):
        pass
    assert not process.may_live()
    child.communicate()
    assert not process.may_live()


def _state(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def test_process_from_before_a_reboot_does_not_live(monkeypatch):
    before = process_.this_process()
    monkeypatch.setattr(process_, "_boot", lambda: "another")
    assert not before.may_live()


@pytest.mark.parametrize(
    ("machine", "here"), [("another", "this"), ("", "this"), ("", "")]
)
def test_process_of_another_machine_of_this_name_may_live(
    monkeypatch, machine, here
):
    """The processes of another cloud's machine cannot be seen here."""
    monkeypatch.setattr(process_, "_machine", lambda: here)
    process = process_.this_process().process.split(".")
    there = dataclasses.replace(
        process_.this_process(),
        process=".".join((machine, "boot", *process[2:])),
    )
    assert there.may_live()
