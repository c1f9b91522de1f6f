# SPDX-License-Identifier: Apache-2.0

"""A copy whose program says nothing for a while, or for too long."""

import subprocess

import pytest

from nova_rbd_backend import errors
from nova_rbd_backend.ceph import qemu_img

# As qemu-img does: a carriage return, and no new line before the end.
SLOW = r"printf '(25.00/100%%)\r'; sleep 0.5; printf '(50.00/100%%)\r'"


@pytest.fixture(autouse=True)
def short_tick(monkeypatch):
    monkeypatch.setattr(qemu_img, "_TICK_SECONDS", 0.1)


def shares(script):
    command = ("sh", "-c", script)
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            return list(qemu_img._shares(process))
        finally:
            process.kill()


def test_share_is_told_while_the_program_says_nothing():
    found = shares(SLOW)
    assert list(dict.fromkeys(found)) == [0.0, 0.25, 0.5]
    # Who hears of it can end the copy meanwhile.
    assert found.count(0.25) > 2


def test_copy_that_does_not_move_is_an_error(monkeypatch):
    monkeypatch.setattr(qemu_img, "STALL_SECONDS", 0.3)
    with pytest.raises(errors.ConversionError, match="no progress"):
        shares(r"while printf '(25.00/100%%)\r'; do sleep 0.05; done")


def test_slow_copy_is_no_error(monkeypatch):
    monkeypatch.setattr(qemu_img, "STALL_SECONDS", 1.0)
    script = "; ".join(
        rf"printf '({share}.00/100%%)\r'; sleep 0.4" for share in range(1, 5)
    )
    assert shares(script)[-1] == 0.04
