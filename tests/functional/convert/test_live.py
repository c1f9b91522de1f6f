# SPDX-License-Identifier: Apache-2.0

"""nova-rbd convert --live: a guest runs while its disks move into Ceph."""

import os
import subprocess

import pytest

from nova_rbd_backend.convert import rbd_disk
from tests.functional.convert.local_instance import ASIDE, MIB, qemu_img
from tests.testbed.guest import console as console_
from tests.testbed.process import wait_for


@pytest.fixture
def running(local, guest_image, tmp_path):
    """A running guest that counts on its disk; it has a disk of each kind."""
    local.overlay("disk", guest_image.raw, 64 * MIB)
    local.add("disk", "vda", "qcow2")
    qemu_img("create", "-f", "qcow2", local.path("disk.eph0"), "8M")
    local.add("disk.eph0", "vdb", "qcow2")
    local.path("disk.config").write_bytes(os.urandom(300 << 10))
    local.add("disk.config", "hda", "raw", device="cdrom")
    local.define()
    local.start()
    console_.wait_for_counter(local.console, 40)
    return local


def counter(local):
    return console_.read(local.console).counter


def goes_on_writing(local):
    now = counter(local)
    console = console_.wait_for_counter(local.console, now + 40)
    assert console.failed == ()
    assert len(console.markers) == 1


def kill_while_it_copies(local):
    run = subprocess.Popen(
        local.program.command("convert", local.uuid, "--live")
    )
    wait_for("QEMU copies", lambda: local.domain.blockJobInfo("vda"), 60, 0.01)
    run.kill()
    run.wait(10)


def on_rbd(local):
    return {
        "vda": f"vms/{local.image('disk')}",
        "vdb": f"vms/{local.image('disk.eph0')}",
        "hda": f"vms/{local.image('disk.config')}",
    }


def test_guest_runs_on(vms, running):
    rows = running.program.json("convert", running.uuid, "--live")

    assert {row["Result"] for row in rows} == {"converted"}
    assert running.sources() == running.sources(live=True) == on_rbd(running)
    goes_on_writing(running)
    assert running.files() == {
        "nova-rbd-convert.json",
        *(f"disk{name}{ASIDE}" for name in ("", ".eph0", ".config")),
    }
    for name, form in (("disk", "qcow2"), ("disk.eph0", "qcow2")):
        aside = running.path(name + ASIDE)
        snap = f"{name}@{rbd_disk.MARK}"
        with vms.open(running.image(name), snap=rbd_disk.MARK) as disk:
            raw = running.folder.parent / "raw"
            qemu_img("convert", "-f", form, "-O", "raw", aside, raw)
            assert disk.read(0, disk.size_bytes()) == raw.read_bytes(), snap
    safe = counter(running)
    running.stop()
    running.start()
    marker = console_.wait_for_boot(running.console, boots=2).markers[1]
    assert marker["boots"] == 2
    assert marker["counter"] >= safe
    assert marker["missing"] == 0
    running.program.json("convert", running.uuid, "--finish")
    assert running.files() == set()


def test_refusals(local):
    """The domain has no operating system."""
    qemu_img("create", "-f", "qcow2", local.path("disk"), "8M")
    local.add("disk", "vda", "qcow2")
    local.define()
    local.start()
    refuse = local.program.refused
    local.domain.suspend()
    assert "is paused" in refuse("convert", local.uuid, "--live")
    local.domain.resume()
    local.stop()
    assert "leave out --live" in refuse("convert", local.uuid, "--live")


def test_killed_while_it_copies(vms, running):
    """The guest keeps its old disks, and the next run starts from scratch."""
    kill_while_it_copies(running)
    goes_on_writing(running)
    assert running.sources(live=True)["vda"] == str(running.path("disk"))

    running.program.json("convert", running.uuid, "--live")

    assert running.sources(live=True) == on_rbd(running)
    assert vms.directory.names(running.uuid) == sorted(
        running.image(name) for name in ("disk", "disk.config", "disk.eph0")
    )
    goes_on_writing(running)


def test_killed_and_undone_while_it_copies(vms, running):
    kill_while_it_copies(running)

    rows = running.program.json("convert", running.uuid, "--undo")

    assert {row["Result"] for row in rows} == {"given up"}
    assert not running.domain.blockJobInfo("vda")
    assert running.files() == {"disk", "disk.eph0", "disk.config"}
    assert vms.directory.names(running.uuid) == []
    goes_on_writing(running)
