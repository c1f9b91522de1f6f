# SPDX-License-Identifier: Apache-2.0

"""One OpenStack for the whole run; each test must leave the pools empty."""

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Callable, Collection, Generator, Iterator

import pytest
from openstack.compute.v2.flavor import Flavor
from openstack.exceptions import raise_from_response
from openstack.image.v2.image import Image

from tests.conftest import INTERRUPTED, REPORTED_FAILURES, Tell
from tests.e2e import proof, told
from tests.e2e.hub import Hubs
from tests.testbed import nova_threads
from tests.testbed.ceph import rbd_view
from tests.testbed.conf_file import Conf
from tests.testbed.guest import building as guest
from tests.testbed.host.compute_host import ComputeHost
from tests.testbed.openstack.importable import file_keys
from tests.testbed.openstack.servers import Servers
from tests.testbed.process import TestbedError, wait_for
from tests.testbed.whole import Testbed

# Each worker of pytest-xdist has a testbed of its own.
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
NAME = os.environ.get("NOVA_RBD_TESTBED_NAME", f"e2e{WORKER}")
# The availability zone that puts a server on the first host, also while both
# hosts take servers.
FIRST = "nova:host1"
# One test stops Ceph, and Nova must notice that within seconds.
OVERRIDES: Conf = {
    "nova_rbd": {"operation_timeout_seconds": 10, "encrypted_disks": True},
    "key_manager": {"backend": "file_keys.FileKeys"},
    "DEFAULT": {
        # A shelved server stays on its host until a test offloads it.
        "shelved_offload_time": -1,
        # What is left of servers that were deleted while their host was away
        # is deleted in this period.
        "instance_delete_interval": 30,
    },
}
PURGE_SECONDS = 60
PATCH = "application/openstack-images-v2.1-json-patch"
FOLDER_SECONDS = 15


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what Ceph and Nova were doing to the report of a failed test."""
    report = yield
    stack = getattr(item, "funcargs", {}).get("stack")
    if report.failed and stack is not None:
        failures = item.session.testsfailed
        if failures < REPORTED_FAILURES:
            report.sections += told.of_all(stack)
    return report


@pytest.fixture(scope="session")
def stack(pytestconfig: pytest.Config) -> Iterator[Testbed]:
    """Ceph, two compute hosts and OpenStack, with this backend.

    Only the first host takes servers; ``other_host`` adds the second.
    For those who write tests: NOVA_RBD_TESTBED_KEEP=1 uses a testbed that is
    up and leaves it up, and NOVA_RBD_TESTBED_NAME gives the testbed a name
    that nobody else uses.
    """
    keep = os.environ.get("NOVA_RBD_TESTBED_KEEP") == "1"
    testbed = Testbed(
        NAME,
        hosts=2,
        overrides=OVERRIDES,
        hub_watched=nova_threads.kind() == nova_threads.EVENTLET,
    )
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print()
        if not keep:
            testbed.down()
        try:
            testbed.up()
            testbed.enable(testbed.hosts[1], False)
        except BaseException:
            if not keep:
                testbed.down()
            raise
    yield testbed
    if not keep:
        testbed.down()
        # Other workers may still have some.
        with contextlib.suppress(OSError):
            file_keys.FOLDER.rmdir()


@pytest.fixture(scope="session")
def guest_image() -> guest.GuestImage:
    """The guest's disk in files."""
    return guest.build()


@dataclasses.dataclass(frozen=True)
class Images:
    """The guest in Glance: ``raw`` in this Ceph, ``qcow2`` elsewhere."""

    raw: Image
    qcow2: Image


@pytest.fixture(scope="session")
def images(stack: Testbed, guest_image: guest.GuestImage) -> Images:
    """The guest image, uploaded to both of Glance's stores."""
    servers = stack.servers()
    return Images(
        raw=servers.upload("guest-raw", guest_image.raw, "raw", "rbd"),
        qcow2=servers.upload(
            "guest-qcow2", guest_image.qcow2, "qcow2", "file"
        ),
    )


@pytest.fixture
def rescue_image(
    stack: Testbed, guest_image: guest.GuestImage
) -> Iterator[Image]:
    """The guest, as an image for a rescue that keeps the disks' names.

    Nova rescues a volume-backed server only with such an image (2.87).
    """
    glance = stack.openstack.connection().image
    image = stack.servers().upload("rescue", guest_image.raw, "raw", "rbd")
    stable = {"hw_rescue_bus": "virtio", "hw_rescue_device": "disk"}
    # update_image() knows only some of an image's properties.
    answer = glance.patch(
        f"/images/{image.id}",
        json=[
            {"op": "add", "path": f"/{name}", "value": value}
            for name, value in stable.items()
        ],
        headers={"Content-Type": PATCH},
    )
    raise_from_response(answer)
    yield image
    glance.delete_image(image)


@pytest.fixture
def servers(stack: Testbed) -> Iterator[Servers]:
    """Act as a user; afterwards delete all servers, and wait for that."""
    with all_deleted(stack) as user:
        yield user


@contextlib.contextmanager
def all_deleted(stack: Testbed) -> Iterator[Servers]:
    """Act as a user; afterwards delete all servers, and wait for that."""
    user = stack.servers()
    yield user
    if INTERRUPTED.is_set():
        return
    try:
        wait_until_at_home(stack)
        user.delete_all()
        wait_until_empty(stack)
        wait_until_at_home(stack)
    except Exception:
        # What a failed test has left must not disturb the next test.
        if not INTERRUPTED.is_set():
            clear(stack)
        raise


@pytest.fixture
def other_host(stack: Testbed) -> Iterator[ComputeHost]:
    """The second host, which takes servers as long as the test runs."""
    host = stack.hosts[1]
    stack.enable(host)
    yield host
    stack.enable(host, False)


@pytest.fixture
def flavor(servers: Servers) -> Flavor:
    """One root disk of 1 GiB."""
    return servers.flavor("root-only", disk_gib=1)


@pytest.fixture
def all_disks(servers: Servers) -> Flavor:
    """Root, ephemeral and swap."""
    return servers.flavor("all", disk_gib=1, ephemeral_gib=1, swap_mib=64)


@pytest.fixture(autouse=True)
def broken_by_qemu(tell: Tell) -> Iterator[None]:
    """Tell of guests that QEMU broke in live migrations; see standstill."""
    before = proof.started_again.copy()
    yield
    for server, times in (proof.started_again - before).items():
        tell(f"QEMU broke the guest of {server}; started it again {times}x")


@pytest.fixture(autouse=True)
def eventlet_runs(request: pytest.FixtureRequest) -> Iterator[None]:
    """On eventlet, nothing in nova-compute may keep other greenlets waiting.

    :raises AssertionError: something did, for more than a second
    """
    is_watched = nova_threads.kind() == nova_threads.EVENTLET
    if not is_watched or "stack" not in request.fixturenames:
        yield
        return
    hubs = Hubs(request.getfixturevalue("stack"))
    yield
    faults = hubs.faults()
    assert not faults, "\n".join(faults)


@pytest.fixture(scope="module")
def spare_host(stack: Testbed) -> Iterator[ComputeHost]:
    """A compute host whose nova-compute the tests start themselves."""
    host = stack.host(3)
    stack.start_host(host)
    yield host
    stack.forget_host(host)


def clear(stack: Testbed) -> None:
    """Remove what a failed test left: faults, servers, snapshots, folders."""
    stack.cluster.start()
    servers = stack.servers()
    servers.delete_all()
    for image in stack.openstack.connection().image.images():
        if image.properties.get("image_type") == "snapshot":
            servers.delete_image(image)
    wait_until_empty(stack)
    remove_folders(stack)


def remove_folders(stack: Testbed) -> None:
    """Remove the servers' folders that Nova has left on the hosts."""
    for host in stack.hosts:
        for name in stack.instance_folders(host):
            shutil.rmtree(host.folder / "state/instances" / name)


def wait_until_empty(stack: Testbed) -> None:
    """Wait until no disk or snapshot is left in the pools or their trash."""

    def left() -> list[str]:
        pools = ("vms", "snapshots")
        return [
            n for pool in pools for n in rbd_view.left(stack.cluster, pool)
        ]

    wait_until_gone(
        "pools vms and snapshots and their trash are empty",
        left,
        PURGE_SECONDS,
    )


def wait_until_at_home(stack: Testbed) -> None:
    """Wait until each host has the folders of its own servers only.

    A folder that stays behind keeps its server from returning: "The supplied
    disk path ... already exists" (Nova 34, pre_live_migration).
    """
    nova = stack.openstack.connection().compute

    def strangers() -> list[str]:
        wrong = []
        for host in stack.hosts:
            here = {
                server.id
                for server in nova.servers(all_projects=True)
                if server.compute_host == host.name
            }
            found = stack.instance_folders(host)
            wrong += [f"{host.name}: {name}" for name in sorted(found - here)]
        return wrong

    wait_until_gone(
        "each host has the folders of its own servers only",
        strangers,
        FOLDER_SECONDS,
    )


def wait_until_gone(
    what: str, left: Callable[[], Collection[str]], limit_seconds: float
) -> None:
    """:raises AssertionError: not within the limit; names what is left"""
    try:
        wait_for(what, lambda: not left(), limit_seconds, 0.5)
    except TestbedError as error:
        raise AssertionError(f"{error}; left: {left()}") from None
