# SPDX-License-Identifier: Apache-2.0

"""Move a server between a host with Nova's own RBD backend and ours."""

from collections.abc import Iterator

import pytest
from openstack.compute.v2.flavor import Flavor

from tests.e2e import proof
from tests.e2e.conftest import FIRST, Images
from tests.testbed.host.compute_host import ComputeHost
from tests.testbed.openstack.servers import Servers
from tests.testbed.whole import Testbed

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def in_tree_host(
    stack: Testbed, servers: Servers, other_host: ComputeHost
) -> Iterator[ComputeHost]:
    """The second host, with Nova's own driver and the same pool."""
    stack.restart_compute(other_host, backend="in-tree")
    yield other_host
    stack.restart_compute(other_host)


def test_both_ways(
    stack: Testbed,
    images: Images,
    servers: Servers,
    all_disks: Flavor,
    in_tree_host: ComputeHost,
) -> None:
    first, moves = stack.hosts[0], stack.moves()
    server = servers.boot(
        "exchanged",
        images.raw,
        all_disks,
        config_drive=True,
        availability_zone=FIRST,
    )
    disks = stack.wait_for_guest(server).markers[-1]["disks"]
    for boots, host in enumerate((in_tree_host, first), start=2):
        safe = proof.written(stack, server)
        moves.cold(server, host.name)
        assert proof.kept(stack, server, safe, boots)["disks"] == disks
    for host in (in_tree_host, first, in_tree_host):
        safe = proof.written(stack, server)
        moves.live(server, host.name)
        proof.went_on(stack, server, safe)
    servers.delete(server)
