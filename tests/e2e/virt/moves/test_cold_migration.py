# SPDX-License-Identifier: Apache-2.0

"""Cold migration and resize: a server moves while it is off."""

import pytest
from openstack.compute.v2.flavor import Flavor

from tests.e2e import proof
from tests.e2e.conftest import FIRST, Images
from tests.testbed.ceph import rbd_view
from tests.testbed.host.compute_host import ComputeHost
from tests.testbed.openstack.servers import Servers
from tests.testbed.whole import Testbed

pytestmark = pytest.mark.timeout(300)

GIB = 1 << 30


def root_bytes(stack: Testbed, server_id: str) -> int:
    """Size of a server's root disk on the cluster."""
    found = rbd_view.images(stack.cluster, "vms")
    return found[f"{server_id}_disk"].size_bytes


def test_cold_migration_there_and_back(
    stack: Testbed,
    images: Images,
    servers: Servers,
    all_disks: Flavor,
    other_host: ComputeHost,
) -> None:
    server = servers.boot(
        "cold",
        images.raw,
        all_disks,
        config_drive=True,
        availability_zone=FIRST,
    )
    disks = stack.wait_for_guest(server).markers[-1]["disks"]
    for boots, host in enumerate((other_host, stack.hosts[0]), start=2):
        safe = proof.written(stack, server)
        stack.moves().cold(server, host.name)
        assert proof.kept(stack, server, safe, boots)["disks"] == disks
        assert stack.wait_for_config_drive(server)["uuid"] == server.id


def test_resize_to_the_other_host(
    stack: Testbed,
    images: Images,
    servers: Servers,
    flavor: Flavor,
    other_host: ComputeHost,
) -> None:
    first, moves = stack.hosts[0], stack.moves()
    big = servers.flavor("root-2", disk_gib=2)
    server = servers.boot(
        "resize", images.raw, flavor, availability_zone=FIRST
    )
    safe = proof.written(stack, server)

    moves.resize(server, big.id, other_host.name)
    resized = proof.kept(stack, server, safe, boots=2)
    assert resized["disks"]["vda"]["bytes"] == 2 * GIB
    assert proof.written(stack, server) > resized["counter"]

    moves.revert(server)
    assert moves.where(server) == first.name
    reverted = proof.kept(stack, server, safe, boots=2)
    assert reverted["counter"] == resized["counter"], (
        "the disk must be as it was at the resize"
    )
    assert root_bytes(stack, server.id) == GIB

    # The reverted resize has left nothing there that prevents a move.
    safe = proof.written(stack, server)
    moves.live(server, other_host.name)
    safe = proof.went_on(stack, server, safe)

    moves.resize(server, big.id, first.name)
    moves.confirm(server)
    confirmed = proof.kept(stack, server, safe, boots=3)
    assert confirmed["disks"]["vda"]["bytes"] == 2 * GIB
    assert root_bytes(stack, server.id) == 2 * GIB
