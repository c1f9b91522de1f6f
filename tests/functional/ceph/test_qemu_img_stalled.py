# SPDX-License-Identifier: Apache-2.0

"""A qemu-img that makes no progress, as when Ceph does not answer."""

import os

import pytest

from nova_rbd_backend import errors
from nova_rbd_backend.ceph import qemu_img
from tests.functional.convert.local_instance import MIB
from tests.support import readers

pytestmark = pytest.mark.timeout(60)
SIZE = 64 * MIB


@pytest.fixture
def files(tmp_path):
    """A raw disk, and an empty file of the same size in Ceph's place."""
    disk, target = tmp_path / "disk", tmp_path / "target"
    disk.write_bytes(os.urandom(MIB))
    for path in (disk, target):
        path.touch()
        os.truncate(path, SIZE)
    return str(disk), str(target)


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """Have each qemu-img stop before it does anything."""
    program = tmp_path / "qemu-img"
    program.write_text("#!/bin/sh\nkill -STOP $$\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


@pytest.mark.parametrize("work", ["copy", "are_same"])
def test_work_is_given_up_and_its_program_ended(
    files, stopped, work, monkeypatch
):
    monkeypatch.setattr(qemu_img, "STALL_SECONDS", 2)
    (path, target), at_work = files, []

    def look(_done):
        at_work.append(readers.of_file(path))

    with pytest.raises(errors.ConversionError, match="no progress for 2 s"):
        getattr(qemu_img, work)(path, "raw", target, SIZE, look)

    assert len(at_work) > 1
    assert len(at_work[-1]) == 1
    assert readers.of_file(path) == []
