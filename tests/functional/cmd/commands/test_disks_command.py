# SPDX-License-Identifier: Apache-2.0

"""nova-rbd list and show, on a real Ceph."""

import json
import subprocess

import pytest

from nova_rbd_backend import metadata, names
from nova_rbd_backend.storage.bases import make as bases
from nova_rbd_backend.storage.disks import provision
from tests.support.blank_disks import blank_disk
from tests.support.program import Program

MIB = 1 << 20
DISKS = ("disk", "disk.config", "disk.swap")


@pytest.fixture
def disks(vms, instance, parent, disks_deleted):
    """The names of an instance's disks; the first is a clone with data."""
    found = [names.DiskName(instance, disk) for disk in DISKS]
    root, *others = found
    facts = metadata.describe(root, "the-project", parent.image, "fast")
    provision.clone_disk(vms, str(root), parent, 64 * MIB, facts)
    with vms.open(str(root), read_only=False) as disk:
        disk.write(b"mine", 20 * MIB)
    for each in others:
        blank_disk(vms, str(each), MIB, metadata.describe(each))
    return [str(each) for each in found]


def rbd_du(ceph, image):
    """Return how many bytes an image uses according to the rbd program."""
    words = ("du", "--format", "json", f"vms/{image}")
    done = subprocess.run(
        ["rbd", "--conf", str(ceph.conf), "--id", "nova", *words],
        capture_output=True,
        timeout=60,
        check=True,
    )
    return sum(each["used_size"] for each in json.loads(done.stdout)["images"])


def test_list(ceph, vms, nova_rbd, instance, disks, parent):
    vms.create("no-disk", MIB)
    vms.create(names.new_draft(f"{instance}_disk.eph0"), MIB)

    root, *others = nova_rbd.json("list", "--used", "--instance", instance)

    assert root == {
        "Pool": "vms",
        "Name": disks[0],
        "Instance": instance,
        "Disk": "disk",
        "Project": "the-project",
        "Image": parent.image,
        "Class": "fast",
        "Size": 64 * MIB,
        "Used": rbd_du(ceph, disks[0]),
        "Parent": f"images/{parent.image}",
        "Depth": 1,
        "Lock owner": None,
    }
    assert root["Used"] == 4 * MIB
    assert [each["Disk"] for each in others] == ["disk.config", "disk.swap"]
    assert {each["Class"] for each in others} == {None}
    assert {each["Parent"] for each in others} == {None}
    csv = nova_rbd.table(
        *("list", "--instance", instance, "-f", "csv"),
        *("-c", "Size", "-c", "Parent"),
    )
    assert csv.splitlines()[2] == f'"{MIB}",""'
    every = nova_rbd.json("list")
    assert "no-disk" not in {each["Name"] for each in every}
    assert set(disks) <= {each["Name"] for each in every}
    vms.remove("no-disk")


def test_table_fits_a_screen(nova_rbd, instance, vms, base, disks):
    rescue = f"{instance}_disk.rescue"
    provision.clone_disk(vms, rescue, bases.snap(vms, base))

    table = nova_rbd.table("list", "--instance", instance)

    assert max(map(len, table.splitlines())) < 150
    assert f"base of {names.base_source(base)}" in table
    assert "| 64 MiB |" in table
    wide = nova_rbd.table("list", "--instance", instance, "--long")
    assert "the-project" in wide
    assert "the-project" not in table
    chosen = nova_rbd.table("list", "--instance", instance, "-c", "Project")
    assert "the-project" in chosen


def test_show(nova_rbd, vms, client, instance, disks, parent):
    holder = client(disks[0])
    assert holder.write("data") == "wrote"
    with vms.open(disks[0], read_only=False) as disk:
        disk.create_snap("nova-resize")

    shown = nova_rbd.json("show", disks[0])

    assert shown["Instance"] == instance
    assert shown["Class"] == "fast"
    assert shown["Size"] == 64 * MIB
    assert shown["Parent"] == str(parent)
    assert shown["Snaps"] == ["nova-resize"]
    assert shown["Object size"] == 4 * MIB
    assert shown["Data pool"] == "vms"
    assert "exclusive-lock" in shown["Features"]
    assert shown["Metadata"]["nova.project"] == "the-project"
    (holds,) = shown["Holders"]
    assert holds.startswith(f"client.{holder.client_id} ")
    assert ": alive" in holds
    assert nova_rbd.json("show", f"vms/{disks[0]}") == shown

    holder.kill()

    (holds,) = nova_rbd.json("show", disks[0])["Holders"]
    assert ": dead" in holds


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("show", "no-such-disk"), "no such image"),
        (("list", "--pool", "no-such-pool"), "create the pool or mend"),
        (("list", "--pool", "volumes"), "caps"),
    ],
)
def test_refuses_in_one_line(nova_rbd, words, part):
    assert part in nova_rbd.refused(*words)


def test_refuses_a_host_without_rbd(ceph, tmp_path):
    program = Program(tmp_path, ceph.conf, images_type="qcow2")
    assert "remove it, or set libvirt_images_type to rbd" in program.refused(
        "list"
    )


def test_help_without_a_command(nova_rbd):
    done = nova_rbd.run()
    assert done.returncode == 1
    assert "nova-rbd help" in done.stderr
