# SPDX-License-Identifier: Apache-2.0

"""A resize to a host with other storage, and how to get the server back.

See doc/source/monitoring.rst. Nova asks the destination only when the server
is on it already.
"""

import shutil
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
def strange_host(
    stack: Testbed, servers: Servers, other_host: ComputeHost
) -> Iterator[ComputeHost]:
    """The second host, with another pool for its disks."""
    stack.restart_compute(
        other_host, {"DEFAULT": {"libvirt_images_store": "snapshots"}}
    )
    yield other_host
    stack.compute(other_host).stop()
    stack.bring_back(other_host)


def test_server_is_evacuated_to_where_it_was(
    stack: Testbed,
    images: Images,
    servers: Servers,
    flavor: Flavor,
    strange_host: ComputeHost,
) -> None:
    nova, first = stack.openstack.connection().compute, stack.hosts[0]
    server = servers.boot(
        "refused", images.raw, flavor, availability_zone=FIRST
    )
    safe = proof.written(stack, server)
    nova.migrate_server(server, host=strange_host.name)
    servers.wait(server, "ERROR")
    assert stack.moves().where(server) == strange_host.name
    fault = servers.get(server).fault["message"]
    assert "share its storage" in fault

    # Nova evacuates no server to a host that has a domain of it.
    first.run(["virsh", "undefine", server.id], check=True)
    stack.declare_down(strange_host)
    stack.moves().evacuate(server, first.name)
    for host, folder in (
        (first, f"{server.id}_resize"),
        (strange_host, server.id),
    ):
        shutil.rmtree(host.folder / "state/instances" / folder)
    safe = proof.kept(stack, server, safe, boots=2)["counter"]
    stack.compute(strange_host).stop()
    stack.bring_back(strange_host)
    proof.went_on(stack, server, safe)
    servers.delete(server)
