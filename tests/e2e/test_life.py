# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""What a user does with a server that runs: rescue, resize, rebuild, image."""

import pytest
from openstack.compute.v2.flavor import Flavor

from tests.e2e.conftest import Images
from tests.testbed import rbd_view
from tests.testbed.servers import Servers
from tests.testbed.whole import Testbed

pytestmark = pytest.mark.timeout(300)

GIB = 1 << 30
MIB = 1 << 20


def sizes(stack: Testbed) -> dict[str, int]:
    """Bytes of each image in the pool of the disks."""
    found = rbd_view.images(stack.cluster, "vms")
    return {name: view.size_bytes for name, view in found.items()}


def test_rescue_has_disks_of_its_own(
    stack: Testbed, images: Images, servers: Servers, flavor: Flavor
) -> None:
    nova = stack.openstack.connection().compute
    server = servers.boot("rescue", images.raw, flavor, config_drive=True)
    before = stack.wait_for_counter(server, 50)
    own = sizes(stack)
    nova.rescue_server(server, image_ref=images.raw.id)
    servers.wait(server, "RESCUE")
    rescue = sizes(stack).keys() - own.keys()
    assert rescue == {
        f"{server.id}_disk.rescue",
        f"{server.id}_disk.config.rescue",
    }
    nova.unrescue_server(server)
    servers.wait(server)
    assert sizes(stack) == own
    after = stack.wait_for_guest(server).markers[-1]
    assert after["counter"] >= before.counter
    assert after["missing"] == 0


def test_resize_and_confirm_and_revert(
    stack: Testbed, images: Images, servers: Servers
) -> None:
    nova = stack.openstack.connection().compute
    small = servers.flavor("swap-4", disk_gib=1, swap_mib=64)
    big = servers.flavor("swap-8", disk_gib=2, swap_mib=128)
    server = servers.boot("resize", images.raw, small)
    before = stack.wait_for_counter(server, 50)
    disk, swap = f"{server.id}_disk", f"{server.id}_disk.swap"
    nova.resize_server(server, big.id)
    servers.wait(server, "VERIFY_RESIZE")
    assert sizes(stack) == {disk: 2 * GIB, swap: 128 * MIB}
    nova.revert_server_resize(server)
    servers.wait(server)
    assert sizes(stack)[disk] == GIB
    nova.resize_server(server, big.id)
    servers.wait(server, "VERIFY_RESIZE")
    nova.confirm_server_resize(server)
    servers.wait(server)
    assert sizes(stack) == {disk: 2 * GIB, swap: 128 * MIB}
    after = stack.wait_for_counter(server, before.counter + 50)
    assert after.counter > before.counter


def test_rebuild_makes_the_disk_anew(
    stack: Testbed, images: Images, servers: Servers, flavor: Flavor
) -> None:
    server = servers.boot("rebuild", images.raw, flavor)
    stack.wait_for_guest(server)
    nova = stack.openstack.connection().compute
    nova.rebuild_server(server, image=images.qcow2.id)
    servers.wait(server)
    found = rbd_view.images(stack.cluster, "vms")
    assert found[f"{server.id}_disk"].parent is None
    assert (
        found[f"{server.id}_disk"].metadata["nova.base_image"]
        == images.qcow2.id
    )


def test_image_of_a_server(
    stack: Testbed, images: Images, servers: Servers, flavor: Flavor
) -> None:
    connection = stack.openstack.connection()
    server = servers.boot("snapshot", images.raw, flavor)
    stack.wait_for_counter(server, 50)
    image = connection.compute.create_server_image(
        server.id, "of-a-server", wait=True, timeout=180
    )
    servers.wait(server)
    again = servers.boot("from-snapshot", image, flavor)
    marker = stack.wait_for_guest(again).markers[-1]
    assert marker["boots"] == 2, "it goes on from the first server's disk"
    servers.delete(again)
    connection.image.delete_image(image)
