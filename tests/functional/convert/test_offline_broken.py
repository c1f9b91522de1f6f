# SPDX-License-Identifier: Apache-2.0

"""nova-rbd convert while something else uses the old disks.

What happens meanwhile is done before a call of the conversion.
"""

import os

import pytest

from nova_rbd_backend.ceph import qemu_img
from nova_rbd_backend.convert import old_disks
from tests.functional.convert.local_instance import ASIDE, MIB

pytestmark = pytest.mark.timeout(300)
DISKS = {"disk": "vda", "disk.eph0": "vdb"}


@pytest.fixture
def off(local):
    """An instance that is shut off, with two small raw disks."""
    for name, dev in DISKS.items():
        local.path(name).write_bytes(os.urandom(MIB) + bytes(MIB))
        local.add(name, dev, "raw")
    local.define()
    return local


@pytest.fixture
def before(monkeypatch):
    """Return a function: do something before the first call of another."""

    def install(module, name, do):
        real = getattr(module, name)

        def call(*args):
            monkeypatch.setattr(module, name, real)
            do()
            return real(*args)

        monkeypatch.setattr(module, name, call)

    return install


def write(local, name):
    with local.path(name).open("r+b") as disk:
        disk.write(b"meanwhile")


def is_converted(local, vms):
    assert local.sources() == {
        dev: f"vms/{local.image(name)}" for name, dev in DISKS.items()
    }
    for name in DISKS:
        assert local.is_same(vms, name, local.path(name + ASIDE), "raw")


@pytest.mark.parametrize("meanwhile", ["written", "started"])
def test_guest_ran_after_the_comparison(vms, off, before, capsys, meanwhile):
    """It keeps the old disks, and the next run copies them again."""
    before(
        old_disks,
        "set_aside",
        off.start if meanwhile == "started" else lambda: write(off, "disk"),
    )

    assert off.convert_here() == 1

    assert "was started meanwhile" in capsys.readouterr().err
    assert off.files() == {*DISKS, "nova-rbd-convert.json"}
    assert off.sources() == {
        dev: str(off.path(name)) for name, dev in DISKS.items()
    }
    if meanwhile == "started":
        off.stop()
    assert off.convert_here() == 0
    is_converted(off, vms)


def test_old_disk_is_written_during_the_copy(vms, off, before, capsys):
    before(qemu_img, "are_same", lambda: write(off, "disk"))

    assert off.convert_here() == 1

    assert "are not the same; the copy is deleted" in capsys.readouterr().err
    assert vms.directory.names(off.uuid) == []
    assert off.files() == set(DISKS)
    assert off.convert_here() == 0
    is_converted(off, vms)
