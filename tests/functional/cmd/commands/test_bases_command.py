# SPDX-License-Identifier: Apache-2.0

"""nova-rbd bases and children, on a real Ceph."""

import uuid

import rbd

from nova_rbd_backend import names
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage.bases import make as bases
from nova_rbd_backend.storage.disks import delete as delete_
from nova_rbd_backend.storage.disks import provision
from tests.support.clients import connect

MIB = 1 << 20


def delete(vms, instance, disk):
    """Move one disk to the trash; its space is freed after the test."""
    delete_.delete_disks(vms, instance, only=lambda name: name == disk)


def test_bases(vms, nova_rbd, instance, base, disks_deleted):
    provision.clone_disk(vms, f"{instance}_disk", bases.snap(vms, base))
    provision.clone_disk(vms, f"{instance}_disk.rescue", bases.snap(vms, base))
    delete(vms, instance, f"{instance}_disk.rescue")

    found = {each["Name"]: each for each in nova_rbd.json("bases")}[base]

    assert found["Image"] == names.base_source(base)
    assert found["Format"] == "qcow2"
    assert found["Size"] == found["Used"] == MIB
    assert found["Clones"] == 2
    assert found["Last used"] >= found["Created"]
    assert names.base_source(base) in nova_rbd.table("bases")


def test_children(ceph, vms, nova_rbd, instance, parent, disks_deleted):
    """Clones in three pools; one is in the trash, one is a clone's clone."""
    root, rescue = f"{instance}_disk", f"{instance}_disk.rescue"
    provision.clone_disk(vms, root, parent)
    provision.clone_disk(vms, rescue, parent)
    delete(vms, instance, rescue)
    snapshot = names.snapshot_image(str(uuid.uuid4()))
    snapshots = Pool(connect(ceph), "snapshots")
    with vms.open(root, read_only=False) as disk:
        disk.create_snap("nova-rbd-1")
    snapshots.clone(vms, root, "nova-rbd-1", snapshot)
    with ceph.admin() as admin:
        volumes = admin.open_ioctx("volumes")
        images = admin.open_ioctx("images")
        rbd.RBD().clone(images, parent.image, "snap", volumes, "volume-1")

    done = nova_rbd.run("children", parent.image)

    # librbd would itself print that it has no rights in `volumes`.
    assert done.stderr == ""
    found = nova_rbd.json("children", parent.image)
    of = {
        each["Name"].rpartition("/")[2]: each
        for each in found
        if each["Kind"] != "unknown"
    }
    assert of.keys() == {root, rescue, snapshot}
    image = f"images/{parent.image}"
    assert of[root]["Instance"] == instance
    assert (of[root]["Level"], of[root]["Parent"]) == (1, image)
    assert not of[root]["Trash"]
    assert of[rescue]["Trash"]
    assert of[snapshot]["Kind"] == "snapshot"
    assert of[snapshot]["Level"] == 2
    assert of[snapshot]["Parent"] == f"vms/{root}"
    (unknown,) = [each for each in found if each["Kind"] == "unknown"]
    assert unknown["Name"].startswith("volumes/")
    assert nova_rbd.json("children", image) == found
    assert len(nova_rbd.json("children", root)) == 1
    snapshots.remove(snapshot)


def test_children_of_a_base(vms, nova_rbd, instance, base, disks_deleted):
    provision.clone_disk(vms, f"{instance}_disk", bases.snap(vms, base))

    (found,) = nova_rbd.json("children", names.base_source(base))

    assert found["Name"] == f"vms/{instance}_disk"
    assert found["Parent"] == f"vms/{base}"


def test_children_of_an_unknown_image(nova_rbd):
    assert "no pool that may be read" in nova_rbd.refused("children", "none")
