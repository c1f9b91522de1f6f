# SPDX-License-Identifier: Apache-2.0

"""A qemu-img that makes no progress, as when Ceph does not answer."""

import os
import pathlib
import signal

import pytest

from nova_rbd_backend import errors
from nova_rbd_backend.convert import qemu_img
from tests.functional.convert.local_instance import MIB

pytestmark = pytest.mark.timeout(60)
SIZE = 64 * MIB


def children():
    """Return the pids of the programs that this thread has started."""
    return pathlib.Path("/proc/thread-self/children").read_text().split()


@pytest.fixture
def files(tmp_path):
    """A raw disk, and an empty file of the same size in Ceph's place."""
    disk, target = tmp_path / "disk", tmp_path / "target"
    disk.write_bytes(os.urandom(MIB))
    for path in (disk, target):
        path.touch()
        os.truncate(path, SIZE)
    return str(disk), str(target)


@pytest.mark.parametrize("work", ["copy", "are_same"])
def test_work_is_given_up_and_its_program_ended(files, work, monkeypatch):
    monkeypatch.setattr(qemu_img, "STALL_SECONDS", 2)
    path, target = files
    before, told = children(), []

    def stop(done):
        told.append(done)
        for pid in set(children()) - set(before):
            os.kill(int(pid), signal.SIGSTOP)

    with pytest.raises(errors.ConversionError, match="no progress for 2 s"):
        getattr(qemu_img, work)(path, "raw", target, SIZE, stop)

    assert len(told) > 1
    assert children() == before
