# SPDX-License-Identifier: Apache-2.0

"""Shelve and offload a server; unshelve it from its image in Glance."""

import pytest
from openstack.compute.v2.flavor import Flavor

from tests.e2e import proof
from tests.e2e.conftest import FIRST, Images
from tests.testbed.ceph import rbd_view
from tests.testbed.host.compute_host import ComputeHost
from tests.testbed.openstack.servers import Servers
from tests.testbed.whole import Testbed

pytestmark = pytest.mark.timeout(300)


def test_back_on_the_other_host(
    stack: Testbed,
    images: Images,
    servers: Servers,
    flavor: Flavor,
    other_host: ComputeHost,
) -> None:
    connection = stack.openstack.connection()
    nova, moves = connection.compute, stack.moves()
    server = servers.boot("shelf", images.raw, flavor, availability_zone=FIRST)
    safe = proof.written(stack, server)

    nova.shelve_server(server)
    servers.wait(server, "SHELVED")
    moves.unshelve(server)
    assert moves.where(server) == stack.hosts[0].name
    proof.kept(stack, server, safe, boots=2)

    safe = proof.written(stack, server)
    nova.shelve_server(server)
    servers.wait(server, "SHELVED")
    nova.shelve_offload_server(server)
    servers.wait(server, "SHELVED_OFFLOADED")
    assert rbd_view.images(stack.cluster, "vms") == {}
    moves.unshelve(server, other_host.name)
    assert moves.where(server) == other_host.name
    proof.kept(stack, server, safe, boots=3)

    servers.delete(server)
    left = [i.name for i in connection.image.images() if "shelf" in i.name]
    assert left == [], "Nova deletes the image once it is not needed"
