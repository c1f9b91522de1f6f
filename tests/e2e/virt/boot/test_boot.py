# SPDX-License-Identifier: Apache-2.0

"""Servers booted through Nova's API, whose disks are RBD images."""

import re
from collections.abc import Iterator

import pytest
from openstack.compute.v2.flavor import Flavor
from openstack.compute.v2.server import Server

from tests.e2e.conftest import Images, all_deleted, wait_until_empty
from tests.testbed.ceph import rbd_view
from tests.testbed.openstack.servers import Servers
from tests.testbed.whole import Testbed

pytestmark = pytest.mark.timeout(300)

GIB = 1 << 30
MIB = 1 << 20


def disks(stack: Testbed) -> dict[str, rbd_view.ImageView]:
    """All images in the pool for disks."""
    return rbd_view.images(stack.cluster, "vms")


@pytest.fixture(scope="module")
def all_kinds(stack: Testbed) -> Flavor:
    """Root, ephemeral and swap, each of another size."""
    return stack.servers().flavor(
        "all-disks", disk_gib=1, ephemeral_gib=2, swap_mib=64
    )


class TestOneServer:
    """A server of a raw image, with a disk of each kind.

    Only the last test changes it.
    """

    @pytest.fixture(scope="class")
    def server(
        self, stack: Testbed, images: Images, all_kinds: Flavor
    ) -> Iterator[Server]:
        with all_deleted(stack) as servers:
            yield servers.boot("one", images.raw, all_kinds, config_drive=True)

    def test_raw_image_in_this_ceph_is_cloned(
        self, stack: Testbed, images: Images, server: Server
    ) -> None:
        disk = disks(stack)[f"{server.id}_disk"]
        assert disk.parent == f"images/{images.raw.id}@snap"

    def test_metadata_tells_the_disks_owner(
        self, stack: Testbed, images: Images, server: Server
    ) -> None:
        metadata = disks(stack)[f"{server.id}_disk"].metadata
        assert metadata["nova.instance"] == server.id
        assert metadata["nova.project"] == server.project_id
        assert metadata["nova.base_image"] == images.raw.id
        assert metadata["nova.disk"] == "disk"
        assert metadata["nova.backend"].startswith("nova_rbd_backend ")

    def test_every_kind_of_disk(self, stack: Testbed, server: Server) -> None:
        sizes = {name: view.size_bytes for name, view in disks(stack).items()}
        assert sizes.pop(f"{server.id}_disk.config") > 0
        assert sizes == {
            f"{server.id}_disk": GIB,
            f"{server.id}_disk.eph0": 2 * GIB,
            f"{server.id}_disk.swap": 64 * MIB,
        }
        seen = stack.wait_for_guest(server).markers[-1]["disks"]
        assert seen["vda"]["bytes"] == GIB
        by_size = {disk["bytes"]: disk["type"] for disk in seen.values()}
        assert by_size[GIB] == ""  # partitions
        assert by_size[2 * GIB] in ("ext4", "vfat")
        assert by_size[64 * MIB] == "swap"
        assert stack.wait_for_config_drive(server)["uuid"] == server.id

    def test_no_key_in_xml_and_logs(
        self, stack: Testbed, server: Server
    ) -> None:
        host = stack.hosts[0]
        xml = host.run(
            ["virsh", "dumpxml", "--security-info", server.id],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        disk = re.search(r"<disk type='network'.*?</disk>", xml, re.S)
        assert disk
        assert f"protocol='rbd' name='vms/{server.id}_disk'" in disk[0]
        assert "<auth username='nova'>" in disk[0]
        key = stack.cluster.key("nova")
        assert key not in xml
        assert key not in stack.compute(host).log.read_text()

    def test_writes_survive_a_reboot(
        self, stack: Testbed, server: Server
    ) -> None:
        before = stack.wait_for_counter(server, 100)
        stack.openstack.connection().compute.reboot_server(server.id, "HARD")
        stack.servers().wait(server)
        after = stack.wait_for_guest(server).markers[-1]
        assert after["boots"] == 2
        assert after["counter"] >= before.counter
        assert after["missing"] == 0


def test_qcow2_image_elsewhere_is_cloned_from_its_base(
    stack: Testbed, images: Images, servers: Servers, all_kinds: Flavor
) -> None:
    """Its server's deletion leaves nothing but the base."""
    server = servers.boot("qcow2", images.qcow2, all_kinds, config_drive=True)
    found = disks(stack)
    assert len(found) == 4
    disk = found[f"{server.id}_disk"]
    (base,) = (
        base
        for base in rbd_view.bases(stack.cluster, "vms").values()
        if base.metadata.get("nova.image") == images.qcow2.id
    )
    assert disk.parent == f"vms/{base.name}@base"
    assert disk.size_bytes == GIB
    console = stack.wait_for_guest(server)
    assert console.markers[-1]["disks"]["vda"]["bytes"] == GIB
    servers.delete(server)
    assert disks(stack) == {}, "names must be free as soon as Nova is done"
    wait_until_empty(stack)


def test_placement_knows_the_usable_capacity(stack: Testbed) -> None:
    placement = stack.openstack.connection().placement
    provider = next(placement.resource_providers(name=stack.hosts[0].name))
    answer = placement.get(f"/resource_providers/{provider.id}/inventories")
    total_gib = answer.json()["inventories"]["DISK_GB"]["total"]
    raw_bytes, usable_bytes = rbd_view.capacity(stack.cluster, "vms")
    assert abs(total_gib - usable_bytes / GIB) <= 1
    assert total_gib < raw_bytes / GIB, "the OSDs keep some space free"
