# SPDX-License-Identifier: Apache-2.0

"""What the flows rely on, shown on a real Ceph with its own time-outs."""

import uuid

import pytest

from nova_rbd_backend import names
from nova_rbd_backend.ceph.pool import Pool
from tests.support.clients import connect
from tests.support.clusters import shared_ceph


@pytest.fixture(scope="session")
def ceph():
    with shared_ceph() as cluster:
        yield cluster


@pytest.fixture
def pool(ceph):
    """The pool of the disks, opened as Nova's user."""
    return Pool(connect(ceph), "vms")


@pytest.fixture
def glance_pool(ceph):
    """The pool of Glance's images, opened as Glance's user."""
    return Pool(connect(ceph, "glance"), "images")


@pytest.fixture
def instance():
    return str(uuid.uuid4())


@pytest.fixture
def name(instance):
    """The name of the instance's root disk, which does not exist yet."""
    return str(names.DiskName(instance, "disk"))


@pytest.fixture
def parent(glance_pool):
    """The path of a protected snap in Glance's pool: 8 MiB, some data."""
    name = str(uuid.uuid4())
    glance_pool.create(name, 8 << 20)
    with glance_pool.open(name, read_only=False) as disk:
        disk.write(b"base", 4096)
        disk.create_snap("snap")
        disk.protect_snap("snap")
    return names.SnapPath("images", "", name, "snap")
