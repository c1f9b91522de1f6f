# SPDX-License-Identifier: Apache-2.0

"""nova-rbd convert moves a shut-off instance's disks to Ceph and back."""

import json
import os
import signal
import subprocess
import time

import libvirt
import pytest

from nova_rbd_backend.convert import rbd_disk
from tests.functional.convert.local_instance import (
    ASIDE,
    MIB,
    PROJECT,
    qemu_img,
)
from tests.support.blank_disks import blank_disk
from tests.support.clients import set_quota
from tests.support.guest_domain import SECRET
from tests.testbed.guest import console
from tests.testbed.process import wait_for


@pytest.fixture
def raw(local):
    """The instance with one small raw disk, from which nothing boots."""
    local.path("disk").write_bytes(os.urandom(MIB) + bytes(5 * MIB) + b"end!")
    os.truncate(local.path("disk"), 8 * MIB)
    local.add("disk", "vda", "raw")
    local.define()
    return local


@pytest.fixture
def whole(local, guest_image, tmp_path):
    """The instance with all the disks that Nova makes on a qcow2 host."""
    local.overlay("disk", guest_image.raw, 64 * MIB)
    local.add("disk", "vda", "qcow2")
    ephemeral = tmp_path / "ephemeral_1_default"
    ephemeral.write_bytes(bytes(MIB) + os.urandom(MIB) + bytes(6 * MIB))
    local.overlay("disk.eph0", ephemeral, 8 * MIB)
    local.add("disk.eph0", "vdb", "qcow2")
    qemu_img("create", "-f", "qcow2", local.path("disk.swap"), "4M")
    local.add("disk.swap", "vdc", "qcow2")
    local.path("disk.config").write_bytes(os.urandom(300 << 10) + b"odd")
    local.add("disk.config", "hda", "raw", device="cdrom")
    local.define()
    return local


def convert(local, *words):
    return local.program.json("convert", local.uuid, *words)


def refused(local, *words):
    return local.program.refused("convert", local.uuid, *words)


def snaps(vms, image):
    with vms.open(image) as disk:
        return [snap.name for snap in disk.snaps()]


def test_guest_comes_up_with_all_it_wrote(vms, whole):
    whole.start()
    announced = console.wait_for_counter(whole.console, 40).counter
    whole.stop()

    rows = convert(whole)

    assert {row["Disk"]: row["Format"] for row in rows} == {
        "disk": "qcow2",
        "disk.eph0": "qcow2",
        "disk.swap": "qcow2",
        "disk.config": "raw",
    }
    assert {row["Result"] for row in rows} == {"converted"}
    assert whole.sources() == {
        "vda": f"vms/{whole.image('disk')}",
        "vdb": f"vms/{whole.image('disk.eph0')}",
        "vdc": f"vms/{whole.image('disk.swap')}",
        "hda": f"vms/{whole.image('disk.config')}",
    }
    for row in rows:
        aside = whole.path(row["Disk"] + ASIDE)
        assert whole.is_same(vms, row["Disk"], aside, row["Format"])
        assert not whole.path(row["Disk"]).exists()
    shown = whole.program.json("show", f"vms/{whole.image('disk')}")
    assert shown["Project"] == PROJECT
    assert shown["Size"] == 64 * MIB
    # Nova starts the same domain next time, and all its disks are in Ceph.
    whole.start()
    marker = console.wait_for_boot(whole.console, boots=2).markers[1]
    assert marker["boots"] == 2
    assert marker["counter"] >= announced
    assert marker["missing"] == 0
    console.wait_for_counter(whole.console, marker["counter"] + 20)
    assert "is running" in refused(whole, "--undo")
    whole.stop()

    refusal = refused(whole, "--undo")

    assert "has written to it" in refusal
    assert "--lose-changes" in refusal
    rows = convert(whole, "--undo", "--lose-changes")
    assert {row["Result"] for row in rows} == {"undone"}
    assert whole.sources()["vda"] == str(whole.path("disk"))
    assert vms.directory.names(whole.uuid) == []
    whole.start()
    again = console.wait_for_boot(whole.console, boots=3).markers[2]
    # The disk is as it was when it was converted.
    assert again["boots"] == 2
    assert again["counter"] >= announced


def test_undo(vms, raw):
    before = raw.path("disk").read_bytes()
    xml = raw.domain.XMLDesc()
    convert(raw)
    assert raw.sources() == {"vda": f"vms/{raw.image('disk')}"}
    (row,) = convert(raw, "--undo", "--dry-run")
    assert row["Result"] == "would be undone"
    assert raw.sources() == {"vda": f"vms/{raw.image('disk')}"}

    convert(raw, "--undo")

    assert raw.path("disk").read_bytes() == before
    assert raw.domain.XMLDesc() == xml
    assert raw.files() == {"disk"}
    assert vms.directory.names(raw.uuid) == []
    assert "no conversion to be undone" in refused(raw, "--undo")
    # It can be converted again.
    convert(raw)
    assert raw.is_same(vms, "disk", raw.path(f"disk{ASIDE}"), "raw")


def test_finish(vms, raw):
    assert "come to its end" in refused(raw, "--finish")
    convert(raw)
    assert "is converted" in refused(raw)
    assert snaps(vms, raw.image("disk")) == [rbd_disk.MARK]
    (row,) = convert(raw, "--finish", "--dry-run")
    assert row["Result"] == "would be finished"
    assert f"disk{ASIDE}" in raw.files()

    (row,) = convert(raw, "--finish")

    assert row["Result"] == "finished"
    assert raw.files() == set()
    assert snaps(vms, raw.image("disk")) == []
    assert "no conversion to be undone" in refused(raw, "--undo")
    assert "nothing to convert" in refused(raw)


def test_finish_keeps_a_disk_that_ceph_does_not_have(vms, raw):
    """The old disk may be the only one."""
    convert(raw)
    kept = raw.files()
    rbd_disk.delete(vms, raw.image("disk"), 0)

    for more in ((), ("--dry-run",)):
        line = refused(raw, "--finish", *more)
        assert f"{raw.image('disk')} is not there" in line

    assert raw.files() == kept
    convert(raw, "--undo")
    assert raw.files() == {"disk"}


def test_dry_run(vms, whole):
    rows = convert(whole, "--dry-run")

    assert {row["Disk"]: row["Size"] for row in rows} == {
        "disk": 64 * MIB,
        "disk.eph0": 8 * MIB,
        "disk.swap": 4 * MIB,
        # QEMU rounds the guest's view up to whole sectors.
        "disk.config": (300 << 10) + 512,
    }
    assert {row["Result"] for row in rows} == {"would be converted"}
    assert vms.directory.names(whole.uuid) == []
    assert whole.sources()["vda"] == str(whole.path("disk"))


def test_guest_wrote_after_an_interrupted_run(vms, raw):
    """The interrupted run copied the disk, but the guest kept the old one."""
    rbd_disk.make(vms, raw.image("disk"), 8 * MIB, lambda _: None, {})
    with raw.path("disk").open("r+b") as disk:
        disk.write(b"newer")

    convert(raw)

    assert raw.is_same(vms, "disk", raw.path(f"disk{ASIDE}"), "raw")


def test_both_disks_were_written(vms, raw):
    name = raw.image("disk")
    rbd_disk.make(vms, name, 8 * MIB, lambda _: None, {})
    with vms.open(name, read_only=False) as disk:
        disk.write(b"precious", 0)

    assert "Which of them is right?" in refused(raw)

    assert raw.path("disk").exists()
    with vms.open(name) as disk:
        assert disk.read(0, 8) == b"precious"
    convert(raw, "--undo", "--lose-changes")
    convert(raw)
    assert raw.is_same(vms, "disk", raw.path(f"disk{ASIDE}"), "raw")


def test_name_is_taken_by_another_disk(vms, raw):
    name = raw.image("disk")
    blank_disk(vms, name, MIB)

    assert "no conversion made it" in refused(raw)

    with vms.open(name) as disk:
        assert disk.size_bytes() == MIB
    assert raw.files() == {"disk"}


def test_running_guest_is_refused(vms, raw):
    raw.start()
    assert "use --live" in refused(raw)
    assert vms.directory.names(raw.uuid) == []


def test_instance_that_is_not_on_this_host(raw):
    other = "11111111-2222-4333-8444-555555555555"
    assert "not on this host" in raw.program.refused("convert", other)
    (raw.instances / other).mkdir()
    refusal = raw.program.refused("convert", other)
    assert f"no domain {other}" in refusal


def test_nova_conf_without_rbd(raw):
    text = raw.program.conf.read_text()
    raw.program.conf.write_text(
        "[DEFAULT]\ncompute_driver = libvirt.LibvirtDriver\n"
        "[libvirt]\nimages_type = qcow2\n"
    )
    assert "no disk of this host is on RBD" in refused(raw)
    raw.program.conf.write_text(text)


@pytest.mark.parametrize(
    ("form", "more", "why"),
    [
        ("vmdk", "", "its format is vmdk"),
        (
            "raw",
            f"<encryption format='luks'>"
            f"<secret type='passphrase' uuid='{SECRET}'/></encryption>",
            "encrypted",
        ),
    ],
)
def test_disks_that_cannot_be_converted(vms, local, form, more, why):
    local.path("disk").write_bytes(bytes(MIB))
    local.add("disk", "vda", form, more=more)
    local.define()
    assert why in refused(local)
    assert vms.directory.names(local.uuid) == []


def test_disk_info_contradicts_the_domain(raw):
    raw.path("disk.info").write_text(
        json.dumps({str(raw.path("disk")): "qcow2"})
    )
    assert "disk.info" in refused(raw)


def test_format_is_not_taken_from_the_disks_content(vms, raw):
    """The guest wrote a qcow2 backed by a file of the host to a raw disk."""
    qemu_img(
        *("create", "-q", "-f", "qcow2", "-b", "/etc/hostname", "-F", "raw"),
        *(raw.folder / "evil", "8M"),
    )
    evil = (raw.folder / "evil").read_bytes()
    raw.path("disk").write_bytes(evil)

    convert(raw)

    with vms.open(raw.image("disk")) as disk:
        assert disk.read(0, len(evil)) == evil


def test_backing_file_outside_novas_cache(local, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(bytes(MIB))
    options = f"backing_file={elsewhere},backing_fmt=raw"
    qemu_img("create", "-f", "qcow2", "-o", options, local.path("disk"), "1M")
    local.add("disk", "vda", "qcow2")
    local.define()
    assert "nothing of Nova's" in refused(local)


def test_no_space(ceph, vms, raw):
    def quota(size):
        with ceph.admin() as admin:
            set_quota(admin, "vms", size, field="max_bytes")

    quota(1)
    try:
        assert "free" in refused(raw)
    finally:
        quota(0)
    assert vms.directory.names(raw.uuid) == []


def begun(vms, local):
    """Start a run, and return it once it has begun to copy a big disk."""
    os.truncate(local.path("disk"), 512 * MIB)
    with local.path("disk").open("r+b") as disk:
        disk.write(os.urandom(128 * MIB))
    run = subprocess.Popen(
        local.program.command("convert", local.uuid),
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(
        "the copy has begun", lambda: vms.directory.names(local.uuid), 60, 0.02
    )
    return run


def test_two_runs_at_once(vms, raw):
    first = begun(vms, raw)
    first.send_signal(signal.SIGSTOP)
    assert "another nova-rbd convert" in refused(raw)
    first.send_signal(signal.SIGCONT)
    assert first.wait(120) == 0
    assert raw.is_same(vms, "disk", raw.path(f"disk{ASIDE}"), "raw")


def test_guest_started_during_the_copy(vms, raw):
    """The guest does not start, as the copy holds QEMU's lock on the disk."""
    run = begun(vms, raw)
    with pytest.raises(libvirt.libvirtError, match="lock"):
        raw.start()
    _, said = run.communicate(timeout=120)
    if run.returncode:
        # It looked in the moment in which libvirt had a guest that starts.
        assert "was started meanwhile" in said
        convert(raw)
    assert raw.is_same(vms, "disk", raw.path(f"disk{ASIDE}"), "raw")


def test_killed_program(vms, raw):
    """The program's children end with it; the next run can start at once."""
    run = begun(vms, raw)
    run.kill()
    run.communicate(timeout=10)
    assert raw.files() == {"disk"}
    began = time.monotonic()
    convert(raw)
    print(f"converted after {time.monotonic() - began:.1f} s")
    assert vms.directory.names(raw.uuid) == [raw.image("disk")]
    assert raw.is_same(vms, "disk", raw.path(f"disk{ASIDE}"), "raw")
