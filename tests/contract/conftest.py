# SPDX-License-Identifier: Apache-2.0

"""Each test of this suite runs on the fake and on a real cluster."""

import uuid

import pytest

from nova_rbd_backend import names
from nova_rbd_backend.ceph import cluster
from nova_rbd_backend.settings import ClusterSettings
from tests.contract.either import pool_of
from tests.contract.fake.state import FakeCluster
from tests.support.clusters import started_ceph


@pytest.fixture(scope="session")
def real_ceph():
    with started_ceph() as ceph:
        yield ceph


def _real(ceph, user):
    return cluster.connect(ClusterSettings(str(ceph.conf), user, 10, 30))


@pytest.fixture(params=["fake", "real"])
def clusters(request):
    """The cluster, connected to as Nova's user and as Glance's."""
    if request.param == "fake":
        fake = FakeCluster()
        return fake, fake
    ceph = request.getfixturevalue("real_ceph")
    return _real(ceph, "nova"), _real(ceph, "glance")


@pytest.fixture
def pool(clusters):
    return pool_of(clusters[0], "vms")


@pytest.fixture
def instance():
    return str(uuid.uuid4())


@pytest.fixture
def name(instance):
    """The name of the instance's root disk, which does not exist yet."""
    return str(names.DiskName(instance, "disk"))


@pytest.fixture
def parent(clusters):
    """The path of a protected snap in Glance's pool: 8 MiB, some data."""
    pool = pool_of(clusters[1], "images")
    name = str(uuid.uuid4())
    pool.create(name, 8 << 20)
    with pool.open(name, read_only=False) as disk:
        disk.write(b"base", 4096)
        disk.create_snap("snap")
        disk.protect_snap("snap")
    return names.SnapPath("images", "", name, "snap")
