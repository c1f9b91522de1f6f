# SPDX-License-Identifier: Apache-2.0

"""nova-rbd flatten: disks in use, disks in the trash, a real guest's disk."""

import contextlib
import os
import subprocess
import uuid

import libvirt
import pytest
import rbd

from nova_rbd_backend import names
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage.disks import delete, provision
from nova_rbd_backend.storage.images import purge
from tests.support.clients import connect, holders
from tests.support.guest_domain import SECRET, domain_xml
from tests.testbed.guest import console as console_
from tests.testbed.process import wait_for

MIB = 1 << 20


@pytest.fixture
def images(ceph):
    """The pool of Glance's images, opened as Glance's user."""
    return Pool(connect(ceph, "glance"), "images")


@pytest.fixture
def image(images):
    """Return a function that makes an image of so many MiB of data."""

    def make(mebibytes):
        name = str(uuid.uuid4())
        images.create(name, mebibytes * MIB)
        with images.open(name, read_only=False) as disk:
            for at in range(0, mebibytes, 4):
                disk.write(os.urandom(4 * MIB), at * MIB)
            disk.create_snap("snap")
        return names.SnapPath("images", "", name, "snap")

    return make


def content(pool, name):
    with pool.open(name) as disk:
        return disk.read(0, disk.size_bytes())


def delete_in_glance(images, snap):
    """Delete an image as Glance does; fails while the image has clones."""
    with images.open(snap.image, read_only=False) as disk:
        disk.remove_snap(snap.snap)
    images.remove(snap.image)


def test_disk_in_use(nova_rbd, vms, images, image, instance, client):
    parent = image(64)
    name = f"{instance}_disk"
    provision.clone_disk(vms, name, parent)
    before = content(vms, name)
    guest = client(name)
    assert guest.write("first") == "wrote"
    (holder,) = holders(vms, name)

    (row,) = nova_rbd.json("flatten", "--dry-run", name)

    assert row["Result"] == "would be flattened"
    assert len(nova_rbd.json("children", parent.image)) == 1

    (row,) = nova_rbd.json("flatten", name)

    assert row["Result"] == "flattened"
    assert row["Size"] == 64 * MIB
    assert nova_rbd.json("children", parent.image) == []
    # The guest still holds the lock.
    assert guest.write("second") == "wrote"
    assert holders(vms, name) == (holder,)
    guest.close()
    delete_in_glance(images, parent)
    assert content(vms, name) == b"second" + before[6:]
    (row,) = nova_rbd.json("flatten", name)
    assert row["Result"] == "has no parent"
    delete.delete_disks(vms, instance)
    purge.purge(vms)


def test_all_clones_of_an_image(
    ceph, nova_rbd, vms, images, image, instance, disks_deleted
):
    parent = image(8)
    used, deleted = f"{instance}_disk", f"{instance}_disk.rescue"
    provision.clone_disk(vms, used, parent)
    with vms.open(used, read_only=False) as disk:
        disk.create_snap("nova-resize")
    provision.clone_disk(vms, deleted, parent)
    delete.delete_disks(
        vms, instance, only=lambda name: name == deleted, retention_seconds=60
    )

    rows = nova_rbd.json("flatten", parent.image)

    assert {row["Name"] for row in rows} == {f"vms/{used}", f"vms/{deleted}"}
    assert {row["Result"] for row in rows} == {"flattened"}
    delete_in_glance(images, parent)
    nova_rbd.json("trash", "restore", deleted)
    done = nova_rbd.run("flatten", parent.image)
    assert "no pool that may be read has such an image" in done.stderr


def test_unreadable_clone(ceph, nova_rbd, image):
    parent = image(4)
    with ceph.admin() as admin:
        volumes = admin.open_ioctx("volumes")
        pool = admin.open_ioctx("images")
        rbd.RBD().clone(pool, parent.image, "snap", volumes, parent.image)

    done = nova_rbd.run("flatten", f"images/{parent.image}", "-f", "json")

    assert done.returncode == 1
    assert "may not be read" in done.stdout
    assert done.stderr == ""


def test_disk_deleted_while_it_is_flattened(nova_rbd, vms, image, instance):
    """nova-compute can delete a disk while it is being flattened."""
    name = f"{instance}_disk"
    provision.clone_disk(vms, name, image(512))
    program = subprocess.Popen(
        nova_rbd.command("flatten", name, "-f", "json"),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for("flatten begins", lambda: holders(vms, name), 30)
        delete.delete_disks(vms, instance)
        assert not vms.directory.exists(name)
        out, _ = program.communicate(timeout=120)
    finally:
        program.kill()
        program.wait(10)
    print(out)
    report = purge.purge(vms)
    assert name in report.purged


@pytest.fixture
def guest_disk(vms, images, instance, guest_image, disks_deleted):
    """A clone of a bootable image."""
    name = str(uuid.uuid4())
    provision.import_disk(images, name, str(guest_image.raw))
    with images.open(name, read_only=False) as disk:
        disk.create_snap("snap")
    snap = names.SnapPath("images", "", name, "snap")
    disk = f"{instance}_disk"
    provision.clone_disk(vms, disk, snap, 64 * MIB)
    return disk


def test_running_guest(
    ceph, nova_rbd, vms, guest_disk, compute_host, tmp_path
):
    compute_host.set_secret(SECRET, "nova", ceph.key("nova"))
    console = tmp_path / "console"
    connection = libvirt.open(compute_host.libvirt_uri)
    domain = connection.createXML(
        domain_xml(f"vms/{guest_disk}", ceph.settings, console)
    )
    try:
        counter = console_.wait_for_counter(console, 20).counter

        (row,) = nova_rbd.json("flatten", guest_disk)

        assert row["Result"] == "flattened"
        seen = console_.wait_for_counter(console, counter + 40)
        assert seen.failed == ()
        with vms.open(guest_disk) as disk:
            assert disk.parent() is None
    finally:
        with contextlib.suppress(libvirt.libvirtError):
            domain.destroy()
        connection.close()
