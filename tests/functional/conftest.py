# SPDX-License-Identifier: Apache-2.0

"""Fixtures for the functional tests: real Ceph, a compute host, a guest."""

import uuid

import pytest

from nova_rbd_backend import names, notices
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage.disks import delete
from nova_rbd_backend.storage.images import purge
from tests.functional.convert import convert_child
from tests.support import ceph_fixtures, storage_child
from tests.support.clients import Client, connect
from tests.support.forks import ForkServer
from tests.support.program import Program

ceph = ceph_fixtures.ceph
guest_image = ceph_fixtures.guest_image
vms = ceph_fixtures.vms


@pytest.fixture
def noted():
    """The notices that the flows of this test have left so far."""
    with notices.collected() as found:
        yield found


@pytest.fixture(scope="module")
def parent(ceph):
    """The snap of an image in Glance's pool: 8 MiB, with b"base" at 4096."""
    images = Pool(connect(ceph, "glance"), "images")
    name = str(uuid.uuid4())
    images.create(name, 8 << 20)
    with images.open(name, read_only=False) as disk:
        disk.write(b"base", 4096)
        disk.create_snap("snap")
    return names.SnapPath("images", "", name, "snap")


@pytest.fixture
def instance():
    """The UUID of an instance that has no disk yet."""
    return str(uuid.uuid4())


@pytest.fixture
def disks_deleted(vms, instance):
    """Delete and purge the instance's disks after the test."""
    yield
    delete.delete_disks(vms, instance)
    purge.purge(vms)


@pytest.fixture
def nova_rbd(ceph, tmp_path):
    """The program nova-rbd, with a nova.conf for this cluster."""
    return Program(tmp_path, ceph.conf)


@pytest.fixture
def client(ceph):
    """Return a function that starts clients of a disk.

    Clients that still run after the test are killed.
    """
    made = []

    def make(image, cluster=ceph):
        made.append(Client(cluster, image))
        return made[-1]

    yield make
    for each in made:
        each.kill()


@pytest.fixture
def deaf_conf(tmp_path):
    """The ceph.conf of a cluster whose monitor does not answer."""
    path = tmp_path / "deaf.conf"
    path.write_text(
        "[global]\nmon_host = v1:127.0.0.1:1\nauth_client_required = none\n"
    )
    return path


@pytest.fixture(scope="session")
def forks():
    """The server that forks the processes which die in the middle."""
    modules = (storage_child, convert_child)
    with ForkServer(*(each.__name__ for each in modules)) as server:
        yield server


@pytest.fixture(scope="session")
def compute_host():
    with ceph_fixtures.started_host() as host:
        yield host
