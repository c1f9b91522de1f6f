# SPDX-License-Identifier: Apache-2.0

"""A frozen client whose watch has ended: only its lock tells of it."""

import signal

import pytest
import rbd

from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage import fencing
from nova_rbd_backend.storage.disks import provision
from tests.support.clients import connect
from tests.support.clusters import wait_for_dead_clients

MIB = 1 << 20
LAYERING = rbd.RBD_FEATURE_LAYERING


@pytest.fixture
def name(instance, disks_deleted):
    return f"{instance}_disk"


@pytest.fixture
def old_parent(ceph, parent):
    """The snap of an image in Glance's pool that has no exclusive-lock."""
    images = Pool(connect(ceph, "glance"), "images")
    name = f"old-{parent.image}"
    with images._access.reach("create") as ioctx:
        rbd.RBD().create(ioctx, name, MIB, old_format=False, features=LAYERING)
    with images.open(name, read_only=False) as image:
        image.create_snap("snap")
    return parent.__class__("images", "", name, "snap")


def test_clone_of_an_image_without_exclusive_lock(
    ceph, vms, instance, name, old_parent, client
):
    provision.clone_disk(vms, name, old_parent)
    frozen = client(name)
    assert frozen.write("old") == "wrote"
    frozen.signal(signal.SIGSTOP)
    wait_for_dead_clients(ceph, "vms")
    assert not fencing.ready_for_start(vms, instance)
    fencing.fence_for_start(vms, instance)
    assert fencing.ready_for_start(vms, instance)
    with vms.open(name, read_only=False) as disk:
        disk.write(b"new", 0)
        disk.flush()
    frozen.signal(signal.SIGCONT)
    assert frozen.write("BAD") == "failed ConnectionShutdown"
    with vms.open(name) as disk:
        assert disk.read(0, 3) == b"new"
