# SPDX-License-Identifier: Apache-2.0

"""Real parts for the functional tests: Ceph, a compute host, a guest."""

import contextlib
import os
import pathlib
import tempfile
import uuid

import pytest

from nova_rbd_backend import names
from nova_rbd_backend.storage import fencing, purge, trash
from tests.clusters import started_ceph
from tests.functional.clients import Client, connect
from tests.functional.guest_domain import SECRET
from tests.functional.local_instance import LocalInstance
from tests.functional.program import Program
from tests.testbed import guest
from tests.testbed.host import ComputeHost

# Kept between runs; .gitignore has it.
KEPT = pathlib.Path(__file__).parents[2] / ".testbed"
# The hosts' addresses: another run's or a testbed's (127.0.0) are not ours.
NETWORK = f"127.{os.getpid() // 250 % 200 + 16}.{os.getpid() % 250}"


@pytest.fixture(scope="session")
def ceph():
    """A cluster whose dead clients' locks lapse after 10 s."""
    with started_ceph(watch_timeout_seconds=10) as cluster:
        yield cluster


@pytest.fixture
def vms(ceph):
    """The pool of the disks, as Nova's user."""
    fencing.untold.clear()
    return connect(ceph).pool("vms")


@pytest.fixture(scope="module")
def parent(ceph):
    """An image of Glance's, 8 MiB, with some bytes in it."""
    images = connect(ceph, "glance").pool("images")
    name = str(uuid.uuid4())
    images.create(name, 8 << 20)
    with images.open(name, read_only=False) as disk:
        disk.write(b"base", 4096)
        disk.create_snap("snap")
    return names.SnapPath("images", "", name, "snap")


@pytest.fixture
def instance():
    """The UUID of one that has no disk yet."""
    return str(uuid.uuid4())


@pytest.fixture
def disks_deleted(vms, instance):
    """After the test the instance's disks are deleted and purged."""
    yield
    trash.delete_disks(vms, instance)
    purge.purge(vms)


@pytest.fixture
def nova_rbd(ceph, tmp_path):
    """The operator's program, with a nova.conf for this cluster."""
    return Program(tmp_path, ceph.conf)


@pytest.fixture
def client(ceph):
    """Makes clients of a disk; what is left of them is killed afterwards."""
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
def guest_image():
    return guest.build(KEPT / "guest", KEPT / "cache")


@contextlib.contextmanager
def started_host():
    """A compute host; only one at a time, for its addresses."""
    with tempfile.TemporaryDirectory(prefix="hosts-", dir="/tmp") as folder:
        host = ComputeHost(pathlib.Path(folder), 1, network=NETWORK)
        try:
            host.start()
            yield host
        finally:
            host.destroy()


@pytest.fixture(scope="session")
def compute_host():
    with started_host() as host:
        yield host


@pytest.fixture
def local(ceph, vms, compute_host, tmp_path):
    """An instance without a disk; what is left of it in Ceph is deleted."""
    compute_host.set_secret(SECRET, "nova", ceph.key("nova"))
    made = LocalInstance(tmp_path, ceph, compute_host)
    yield made
    made.remove()
    trash.delete_disks(vms, made.uuid)
    purge.purge(vms)
