# SPDX-License-Identifier: Apache-2.0

"""nova-rbd convert with disks on logical volumes."""

import os
import signal
import subprocess

import libvirt
import pytest

from tests.functional.convert.local_instance import ASIDE, MIB
from tests.functional.convert.logical_volumes import VolumeGroup
from tests.testbed.guest import console as console_
from tests.testbed.process import wait_for


@pytest.fixture
def group(tmp_path, monkeypatch):
    made = VolumeGroup(tmp_path)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    yield made
    made.remove()


@pytest.fixture
def on_lvm(local, group, guest_image):
    """A guest whose root and ephemeral disk are on logical volumes."""
    root = guest_image.raw.read_bytes().ljust(64 * MIB, b"\0")
    path = group.add(f"{local.uuid}_disk", root)
    local.add("disk", "vda", "raw", path=path)
    path = group.add(f"{local.uuid}_disk.eph0", os.urandom(MIB))
    local.add("disk.eph0", "vdb", "raw", path=path)
    local.define()
    return local


def volumes(local, suffix):
    return {f"{local.uuid}_disk{suffix}", f"{local.uuid}_disk.eph0{suffix}"}


def test_there_and_back(vms, group, on_lvm):
    data = {
        name: (group.links / f"{on_lvm.uuid}_{name}").read_bytes()
        for name in ("disk", "disk.eph0")
    }

    rows = on_lvm.program.json("convert", on_lvm.uuid)

    assert {row["Format"] for row in rows} == {"raw"}
    for name, content in data.items():
        with vms.open(on_lvm.image(name)) as disk:
            assert disk.read(0, disk.size_bytes()) == content
    assert set(group.volumes()) == volumes(on_lvm, ASIDE)
    on_lvm.program.json("convert", on_lvm.uuid, "--undo")
    assert set(group.volumes()) == volumes(on_lvm, "")
    assert vms.directory.names(on_lvm.uuid) == []
    on_lvm.program.json("convert", on_lvm.uuid)
    on_lvm.program.json("convert", on_lvm.uuid, "--finish")
    assert group.volumes() == []


def test_live(vms, group, on_lvm):
    on_lvm.start()
    console_.wait_for_counter(on_lvm.console, 40)

    on_lvm.program.json("convert", on_lvm.uuid, "--live")

    assert on_lvm.sources(live=True)["vda"] == f"vms/{on_lvm.image('disk')}"
    now = console_.read(on_lvm.console).counter
    console = console_.wait_for_counter(on_lvm.console, now + 40)
    assert console.failed == ()
    assert set(group.volumes()) == volumes(on_lvm, ASIDE)


def test_volume_of_cinder_stays(vms, group, on_lvm, tmp_path):
    """Cinder's volume is no disk of Nova's, even in the same volume group."""
    device = group.add("volume-0", bytes(MIB))
    on_lvm.add("volume", "vdc", "raw", path=device)
    on_lvm.define()
    on_lvm.program.json("convert", on_lvm.uuid)
    assert on_lvm.sources()["vdc"] == str(device)
    assert "volume-0" in group.volumes()


def test_encrypted_volume_is_refused(on_lvm, group):
    path = group.add(f"{on_lvm.uuid}_disk.swap-dmcrypt", bytes(MIB))
    on_lvm.add("disk.swap", "vdc", "raw", path=path)
    on_lvm.define()
    refusal = on_lvm.program.refused("convert", on_lvm.uuid)
    assert "encrypted" in refusal


def test_guest_started_during_the_copy(vms, group, on_lvm):
    """Either the guest starts, or the conversion succeeds; never both."""
    run = subprocess.Popen(
        on_lvm.program.command("convert", on_lvm.uuid),
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(
        "the copy has begun",
        lambda: vms.directory.names(on_lvm.uuid),
        60,
        0.01,
    )
    run.send_signal(signal.SIGSTOP)
    try:
        on_lvm.start()
        started = True
    except libvirt.libvirtError as error:
        print(error)
        started = False
    run.send_signal(signal.SIGCONT)
    _, said = run.communicate(timeout=120)
    # QEMU locks devices as well as files, so whichever comes second fails.
    assert started is (run.returncode == 1), said
    assert set(group.volumes()) == volumes(on_lvm, "" if started else ASIDE)
