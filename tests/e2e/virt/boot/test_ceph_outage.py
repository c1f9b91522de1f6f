# SPDX-License-Identifier: Apache-2.0

"""Ceph stops while a server is being built, and comes back."""

import os
import pathlib
import shutil
from collections.abc import Iterator

import pytest
from openstack.compute.v2.flavor import Flavor

from nova_rbd_backend import errors
from tests.e2e.conftest import Images, wait_until_empty
from tests.testbed.ceph import rbd_view
from tests.testbed.guest.disk import run
from tests.testbed.openstack.servers import ServerFault, Servers
from tests.testbed.process import wait_for
from tests.testbed.whole import Testbed

pytestmark = pytest.mark.timeout(400)

MIB = 1 << 20


@pytest.fixture
def ceph_back(stack: Testbed, servers: Servers) -> Iterator[None]:
    """Start Ceph before the servers are deleted, also after a failure."""
    yield
    stack.cluster.start()


@pytest.fixture(scope="module")
def full_qcow2(
    stack: Testbed, tmp_path_factory: pytest.TempPathFactory
) -> pathlib.Path:
    """An image whose copy into Ceph takes seconds: 600 MiB of noise."""
    folder = tmp_path_factory.mktemp("full")
    raw, qcow2 = folder / "full.raw", folder / "full.qcow2"
    with raw.open("wb") as file:
        file.seek(MIB)
        for _ in range(600):
            file.write(os.urandom(MIB))
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, qcow2)
    raw.unlink()
    return qcow2


def test_stopped_before_the_disk_is_made(
    stack: Testbed,
    servers: Servers,
    images: Images,
    flavor: Flavor,
    ceph_back: None,
) -> None:
    stack.cluster.stop()
    server = servers.create("outage", images.raw, flavor)
    with pytest.raises(ServerFault) as raised:
        servers.wait(server)
    stack.cluster.start()
    assert_clear(raised.value.message)
    servers.delete(server)
    wait_until_empty(stack)
    servers.boot("after", images.raw, flavor)


def test_stopped_while_an_image_is_copied(
    stack: Testbed,
    servers: Servers,
    images: Images,
    flavor: Flavor,
    full_qcow2: pathlib.Path,
    ceph_back: None,
) -> None:
    image = servers.upload("full", full_qcow2, "qcow2", "file")
    server = servers.create("half", image, flavor)
    wait_for(
        "the copy into Ceph has begun",
        lambda: rbd_view.left(stack.cluster, "vms"),
        60,
        interval_seconds=0.05,
    )
    stack.cluster.stop()
    with pytest.raises(ServerFault) as raised:
        servers.wait(server)
    stack.cluster.start()
    assert_clear(raised.value.message)
    servers.delete(server)
    wait_until_empty(stack)
    # Nova cleans up after a failed build only once, when Ceph was away, and
    # does not ask the host again. This backend finds the disk and undoes it;
    # nothing removes the folder.
    folder = stack.hosts[0].folder / "state/instances" / server.id
    shutil.rmtree(folder, ignore_errors=True)
    again = servers.boot("whole", image, flavor)
    disk = rbd_view.images(stack.cluster, "vms")[f"{again.id}_disk"]
    assert disk.size_bytes == flavor.disk << 30


def assert_clear(fault: str) -> None:
    """Assert that a user can tell from it that the storage is to blame.

    The texts of the errors that an outage may cause say so. That the name of
    a file or folder contains "ceph" does not.
    """
    assert fault.startswith("Storage error: "), fault
    assert any(
        each.advice in fault
        for each in (
            errors.ClusterUnreachable,
            errors.ConnectionLost,
            errors.OperationTimedOut,
        )
    ), fault
