# SPDX-License-Identifier: Apache-2.0

"""A root of another Debian is made whole, or made again."""

import pathlib
import signal
import subprocess
import sys

from tests.matrix import roots
from tests.testbed.process import start_time, wait_for

MAKE = "from tests.matrix.roots import Root; Root('13')._make()"


def test_root_whose_maker_was_killed(tmp_path, monkeypatch):
    """Its debootstrap ends too, and the root is not taken for made."""
    marker = tmp_path / "began"
    program = tmp_path / "bin/debootstrap"
    program.parent.mkdir()
    program.write_text(
        f"#!/bin/sh\nmkdir -p {tmp_path}/roots/trixie\n"
        f"echo half > {tmp_path}/roots/trixie/etc\n"
        f"touch {marker}\nexec sleep 3141\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/sbin:/usr/bin")
    monkeypatch.setenv("NOVA_RBD_ROOTS", str(tmp_path / "roots"))
    monkeypatch.setattr(roots, "FOLDER", tmp_path / "roots")
    (tmp_path / "roots").mkdir()
    root = roots.Root("13")
    root._stamp.write_text(root._hash())
    maker = subprocess.Popen([sys.executable, "-c", MAKE])
    wait_for("debootstrap runs", marker.exists, 30)
    (child,) = _children(maker.pid)
    maker.send_signal(signal.SIGKILL)
    maker.wait(10)
    wait_for("debootstrap ends", lambda: start_time(child) is None, 30)
    assert not root._is_made()


def test_root_is_never_this_machine():
    """Its folder is removed before it is made."""
    for debian in roots.SUITES:
        assert roots.Root(debian).folder.parent == roots.FOLDER


def _children(pid: int) -> list[int]:
    """Return the processes below a process, without itself."""
    path = pathlib.Path(f"/proc/{pid}/task/{pid}/children")
    found = [int(word) for word in path.read_text().split()]
    return [each for child in found for each in (_children(child) or [child])]
