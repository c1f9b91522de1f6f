# SPDX-License-Identifier: Apache-2.0

"""What the flows rely on, shown on a real Ceph with its own time-outs."""

import itertools
import uuid

import pytest
import rbd

from nova_rbd_backend import names
from nova_rbd_backend.ceph.pool import Pool
from tests.support.clients import connect
from tests.support.clusters import client_requests, shared_ceph

# Each host of a test has other settings, and by that its own notes.
_TIMEOUTS = itertools.count(61)


@pytest.fixture(scope="session")
def ceph():
    with shared_ceph() as cluster:
        yield cluster


@pytest.fixture
def pool(ceph):
    """The pool of the disks, opened as Nova's user."""
    return Pool(connect(ceph), "vms")


@pytest.fixture
def host(ceph, pool):
    """Return a function that makes a host; all share an empty namespace."""
    namespace = str(uuid.uuid4())
    with ceph.admin() as admin, admin.open_ioctx(pool.name) as ioctx:
        rbd.RBD().namespace_create(ioctx, namespace)

    def host():
        cluster = connect(ceph, operation_timeout_seconds=next(_TIMEOUTS))
        return Pool(cluster, pool.name, namespace)

    return host


@pytest.fixture
def requests(ceph):
    """Return a function that calls another; how many requests, the answer.

    The OSDs do not count a request for a lease that another host has.
    """
    with ceph.admin() as admin:

        def counted(call):
            before = client_requests(ceph, admin)
            answer = call()
            return client_requests(ceph, admin) - before, answer

        yield counted


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
