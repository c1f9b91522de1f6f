# SPDX-License-Identifier: Apache-2.0

"""Makes an image of a server, as a user does."""

from openstack.compute.v2.server import Server
from openstack.image.v2.image import Image

from tests.testbed.whole import Testbed

SNAPSHOT_SECONDS = 180


def snapshot(stack: Testbed, server: Server, name: str) -> Image:
    """Make an image of a server as a user does, and wait until it can boot.

    Asserts that the guest was not stopped for it: its process is the same.
    """
    guests = stack.hosts[0].qemu_pids()
    compute = stack.openstack.connection().compute
    image = compute.create_server_image(
        server.id, name, wait=True, timeout=SNAPSHOT_SECONDS
    )
    stack.servers().wait(server)
    assert stack.hosts[0].qemu_pids() == guests
    found: Image = stack.openstack.connection().image.get_image(image.id)
    assert found.status == "active"
    return found
