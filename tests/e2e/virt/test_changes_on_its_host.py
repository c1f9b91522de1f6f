# SPDX-License-Identifier: Apache-2.0

"""Changes to a server that stays on its host."""

from collections.abc import Iterator

import pytest
from openstack.compute.v2.flavor import Flavor
from openstack.compute.v2.server import Server

from tests.e2e import proof
from tests.e2e.conftest import Images
from tests.testbed.ceph import rbd_view
from tests.testbed.openstack.servers import Servers
from tests.testbed.whole import Testbed

pytestmark = pytest.mark.timeout(300)


GIB = 1 << 30
MIB = 1 << 20


def sizes(stack: Testbed, server: Server) -> dict[str, int]:
    """Bytes of each of the server's disks, by its name without the id."""
    found = rbd_view.images(stack.cluster, "vms")
    return {
        name.removeprefix(f"{server.id}_"): view.size_bytes
        for name, view in found.items()
        if name.startswith(server.id)
    }


def test_suspend_pause_and_reboot(
    stack: Testbed, images: Images, servers: Servers, all_disks: Flavor
) -> None:
    nova = stack.openstack.connection().compute
    server = servers.boot("pause", images.raw, all_disks, config_drive=True)
    safe = proof.written(stack, server)
    nova.suspend_server(server)
    servers.wait(server, "SUSPENDED")
    nova.resume_server(server)
    servers.wait(server)
    safe = proof.went_on(stack, server, safe)
    nova.pause_server(server)
    servers.wait(server, "PAUSED")
    nova.unpause_server(server)
    servers.wait(server)
    safe = proof.went_on(stack, server, safe)
    nova.reboot_server(server, "HARD")
    servers.wait(server)
    proof.kept(stack, server, safe, boots=2)


def test_rescue_and_rebuild_with_all_disks(
    stack: Testbed, images: Images, servers: Servers, all_disks: Flavor
) -> None:
    nova = stack.openstack.connection().compute
    server = servers.boot(
        "rescue-all", images.raw, all_disks, config_drive=True
    )
    safe = proof.written(stack, server)
    own = sizes(stack, server)
    nova.rescue_server(server, image_ref=images.raw.id)
    servers.wait(server, "RESCUE")
    more = sizes(stack, server).keys() - own.keys()
    assert more == {"disk.rescue", "disk.config.rescue"}
    rescued = stack.wait_for_guest(server).markers[-1]
    assert rescued["boots"] == 1, "it has booted from the rescue image"
    nova.unrescue_server(server)
    servers.wait(server)
    assert sizes(stack, server) == own
    proof.kept(stack, server, safe, boots=2)

    nova.rebuild_server(server, image=images.qcow2.id)
    servers.wait(server)
    assert sizes(stack, server) == own
    disk = rbd_view.images(stack.cluster, "vms")[f"{server.id}_disk"]
    assert disk.metadata["nova.base_image"] == images.qcow2.id
    rebuilt = stack.wait_for_guest(server).markers[-1]
    assert (rebuilt["boots"], rebuilt["counter"]) == (1, 0)


def test_resize_on_its_host(
    stack: Testbed, images: Images, servers: Servers
) -> None:
    """The resize is reverted, then repeated and confirmed."""
    nova = stack.openstack.connection().compute
    small = servers.flavor("swap-4", disk_gib=1, swap_mib=64)
    big = servers.flavor("swap-8", disk_gib=2, swap_mib=128)
    server = servers.boot("resize", images.raw, small)
    safe = proof.written(stack, server)
    nova.resize_server(server, big.id)
    servers.wait(server, "VERIFY_RESIZE")
    resized = {"disk": 2 * GIB, "disk.swap": 128 * MIB}
    assert sizes(stack, server) == resized
    nova.revert_server_resize(server)
    servers.wait(server)
    assert sizes(stack, server)["disk"] == GIB
    safe = proof.kept(stack, server, safe, boots=2)["counter"]
    nova.resize_server(server, big.id)
    servers.wait(server, "VERIFY_RESIZE")
    nova.confirm_server_resize(server)
    servers.wait(server)
    assert sizes(stack, server) == resized
    proof.kept(stack, server, safe, boots=3)


@pytest.fixture
def late_reclaim(stack: Testbed, servers: Servers) -> Iterator[None]:
    """Let Nova keep a deleted server for ten minutes."""
    kept = {"DEFAULT": {"reclaim_instance_interval": 600}}
    stack.openstack.restart_nova_api(kept)
    yield
    stack.openstack.restart_nova_api({})


def test_soft_delete_and_restore(
    stack: Testbed,
    images: Images,
    servers: Servers,
    flavor: Flavor,
    late_reclaim: None,
) -> None:
    nova = stack.openstack.connection().compute
    server = servers.boot("soft", images.raw, flavor)
    safe = proof.written(stack, server)
    disks = sizes(stack, server)
    nova.delete_server(server)
    servers.wait(server, "SOFT_DELETED")
    assert sizes(stack, server) == disks
    nova.restore_server(server)
    servers.wait(server)
    proof.kept(stack, server, safe, boots=2)
    nova.delete_server(server, force=True)
    nova.wait_for_delete(server, interval=1, wait=60)
    assert sizes(stack, server) == {}
