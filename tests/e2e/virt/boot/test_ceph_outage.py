# SPDX-License-Identifier: Apache-2.0

"""Ceph stops while a server is being built, and comes back."""

import contextlib
import shutil
from collections.abc import Callable, Iterator

import pytest
import rados
import rbd
from openstack.compute.v2.flavor import Flavor

from nova_rbd_backend import errors
from tests.e2e.conftest import Images, wait_until_empty
from tests.testbed.ceph import rbd_view
from tests.testbed.guest import building as guest
from tests.testbed.openstack.servers import ServerFault, Servers
from tests.testbed.process import wait_for
from tests.testbed.whole import Testbed

pytestmark = pytest.mark.timeout(400)

# The guest has more than 16 MiB of data, which then take eight seconds.
LIMIT, BYTES_PER_SECOND = "conf_rbd_qos_bps_limit", 2 << 20


@pytest.fixture
def ceph_back(stack: Testbed, servers: Servers) -> Iterator[None]:
    """Start Ceph before the servers are deleted, also after a failure."""
    yield
    stack.cluster.start()


@pytest.fixture
def usual_pool(stack: Testbed) -> Iterator[Callable[[], None]]:
    """Let clients write slowly to new images in pool vms, while the test runs.

    The function ends that earlier.
    """

    def end() -> None:
        with vms(stack) as ioctx, contextlib.suppress(KeyError):
            rbd.RBD().pool_metadata_remove(ioctx, LIMIT)

    with vms(stack) as ioctx:
        rbd.RBD().pool_metadata_set(ioctx, LIMIT, str(BYTES_PER_SECOND))
    yield end
    end()


@contextlib.contextmanager
def vms(stack: Testbed) -> Iterator[rados.Ioctx]:
    with stack.cluster.admin() as admin, admin.open_ioctx("vms") as ioctx:
        yield ioctx


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
    guest_image: guest.GuestImage,
    usual_pool: Callable[[], None],
    ceph_back: None,
) -> None:
    image = servers.upload("slow", guest_image.qcow2, "qcow2", "file")
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
    usual_pool()
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
    stack.wait_for_guest(again)


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
