# SPDX-License-Identifier: Apache-2.0

"""Many servers asked for in one request."""

import pytest
from openstack.compute.v2.flavor import Flavor

from tests.e2e import proof
from tests.e2e.conftest import Images
from tests.testbed.host.compute_host import ComputeHost
from tests.testbed.openstack.servers import Servers
from tests.testbed.whole import Testbed

pytestmark = pytest.mark.timeout(400)

COUNT = 10
# All guests boot at once, and all are emulated.
GUEST_SECONDS = 180


def test_ten_on_two_hosts(
    stack: Testbed,
    images: Images,
    servers: Servers,
    flavor: Flavor,
    other_host: ComputeHost,
) -> None:
    servers.create("many", images.raw, flavor, min_count=COUNT)
    nova = stack.openstack.connection().compute
    asked = list(nova.servers())
    assert len(asked) == COUNT
    booted = [servers.wait(server) for server in asked]
    hosts = {server.compute_host for server in booted}
    assert hosts == {stack.hosts[0].name, other_host.name}
    for server in booted:
        console = stack.wait_for_counter(server, proof.STEP, GUEST_SECONDS)
        assert console.markers[-1]["boots"] == 1
