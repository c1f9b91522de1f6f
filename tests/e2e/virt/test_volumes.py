# SPDX-License-Identifier: Apache-2.0

"""Cinder's RBD volumes, beside this backend's disks and as root disks."""

import base64
import json
import re
from collections.abc import Iterator

import pytest
from openstack.compute.v2.flavor import Flavor
from openstack.compute.v2.server import Server
from openstack.image.v2.image import Image

from tests.e2e import domain, proof
from tests.e2e.conftest import FIRST, Images, Tell
from tests.testbed.ceph import rbd_view
from tests.testbed.guest import console as console_
from tests.testbed.guest import disk as disk_
from tests.testbed.host.compute_host import ComputeHost
from tests.testbed.openstack.servers import Servers
from tests.testbed.openstack.volumes import Volume, Volumes
from tests.testbed.process import wait_for
from tests.testbed.whole import Testbed

pytestmark = pytest.mark.timeout(400)

# The guest takes this for swap space and reports the label, which proves that
# it has read the volume.
LABEL = "of-cinder"
SWAP_LABEL, SWAP_MAGIC = (1052, LABEL.encode()), (4086, b"SWAPSPACE2")
SECTOR = 512
NUMBER_SECTOR = 2048
GUEST_SECONDS = 60
# Reads the last number from the volume and writes the next one, as long as
# the volume is attached. After a boot, a move or a second attach it must go on
# from the last number.
WRITER = f"""#!/bin/sh
while usleep 200000; do
    # A dd that comes just after the volume went makes a file of that name.
    [ -b /dev/vdb ] || {{ rm -f /dev/vdb; continue; }}
    last=$(dd if=/dev/vdb bs={SECTOR} skip={NUMBER_SECTOR} count=1 \\
        iflag=direct 2>/dev/null | tr -d '\\000' | sed 's/[^0-9]//g')
    printf '%-511s\\n' "NUMBER $((last + 1))" | dd of=/dev/vdb bs={SECTOR} \\
        seek={NUMBER_SECTOR} oflag=direct conv=notrunc,fsync 2>/dev/null
done &
"""


@pytest.fixture
def volumes(stack: Testbed) -> Iterator[Volumes]:
    """Make volumes; afterwards remove them all, and fail if one is missing.

    Request this before ``servers``, so that the servers are deleted first.
    """
    url = stack.openstack.site.url("volume")
    cinder = Volumes(stack.cluster, url)
    for host in stack.hosts:
        cinder.give_secret(host)
    yield cinder
    cinder.remove_all()


def test_attached_to_a_running_server(
    stack: Testbed,
    images: Images,
    volumes: Volumes,
    servers: Servers,
    flavor: Flavor,
    other_host: ComputeHost,
    tell: Tell,
) -> None:
    nova = stack.openstack.connection().compute
    volume = volumes.blank()
    for offset, data in (SWAP_LABEL, SWAP_MAGIC):
        volumes.write(volume, offset, data)
    server = servers.boot(
        "volume",
        images.raw,
        flavor,
        config_drive=True,
        user_data=base64.b64encode(WRITER.encode()).decode(),
        availability_zone=FIRST,
    )
    stack.wait_for_config_drive(server)
    own = set(rbd_view.images(stack.cluster, "vms"))
    watch = proof.Watch()
    nova.create_volume_attachment(server, volume.id)
    wait_for_label(stack, server)
    volumes.wait(volume, "in-use")
    tell(f"attached in {watch}")
    for host in (other_host, stack.hosts[0]):
        safe = proof.written(stack, server)
        number = wait_for_next_number(volumes, volume)
        stack.moves().live(server, host.name)
        proof.went_on(stack, server, safe)
        assert wait_for_next_number(volumes, volume) > number
        assert volumes.hosts(volume) == [host.name]
    safe = proof.written(stack, server)
    number = wait_for_next_number(volumes, volume)
    nova.reboot_server(server.id, "HARD")
    servers.wait(server)
    booted = proof.kept(stack, server, safe, boots=2)
    assert booted["disks"]["vdb"]["label"] == LABEL
    assert wait_for_next_number(volumes, volume) > number

    nova.delete_volume_attachment(server, volume.id)
    volumes.wait(volume, "available")
    wait_for_label(stack, server, there=False)
    assert set(rbd_view.images(stack.cluster, "vms")) == own
    nova.create_volume_attachment(server, volume.id)
    volumes.wait(volume, "in-use")
    number = wait_for_next_number(volumes, volume)
    servers.delete(server)
    volumes.wait(volume, "available")
    assert last_number(volumes, volume) >= number
    assert volumes.read(volume, *extent(SWAP_LABEL)) == SWAP_LABEL[1]
    assert volumes.read(volume, *extent(SWAP_MAGIC)) == SWAP_MAGIC[1]


def test_server_that_boots_from_a_volume(
    stack: Testbed,
    images: Images,
    rescue_image: Image,
    volumes: Volumes,
    servers: Servers,
    all_disks: Flavor,
    other_host: ComputeHost,
    tell: Tell,
) -> None:
    nova = stack.openstack.connection().compute
    first = stack.hosts[0]
    volume = volumes.of_image(images.raw)
    watch = proof.Watch()
    server = boot_from(stack, volume, all_disks)
    own = {f"{server.id}_disk.{n}" for n in ("eph0", "swap", "config")}
    assert set(rbd_view.images(stack.cluster, "vms")) == own
    assert domain.sources(first, server)["vda"] == f"volumes/{volume.image}"
    stack.wait_for_guest(server)
    tell(f"booted in {watch}")
    safe = proof.written(stack, server)
    nova.reboot_server(server.id, "HARD")
    servers.wait(server)
    proof.kept(stack, server, safe, boots=2)

    safe = proof.written(stack, server)
    nova.rescue_server(server, image_ref=rescue_image.id)
    servers.wait(server, "RESCUE")
    disk = f"{server.id}_disk.rescue"
    unused = f"{server.id}_disk.swap.rescue"
    assert unused not in str(domain.sources(first, server))
    assert domain.boots_from(first, server) == f"vms/{disk}"
    assert domain.sources(first, server)["vda"] == f"volumes/{volume.image}"
    added = set(rbd_view.images(stack.cluster, "vms")) - own
    # Nova (34, _create_image) makes a swap disk too, which nothing uses.
    assert added == {disk, f"{server.id}_disk.config.rescue", unused}
    # This guest mounts the first root disk that it finds, which is the volume.
    proof.kept(stack, server, safe, boots=3)
    safe = proof.written(stack, server)
    nova.unrescue_server(server)
    servers.wait(server)
    assert set(rbd_view.images(stack.cluster, "vms")) == own
    assert domain.sources(first, server)["vda"] == f"volumes/{volume.image}"
    proof.kept(stack, server, safe, boots=4)

    safe = proof.written(stack, server)
    stack.moves().live(server, other_host.name)
    proof.went_on(stack, server, safe)
    assert volumes.hosts(volume) == [other_host.name]

    snapshot_is_cinders(stack, volumes, volume, server)
    safe = proof.written(stack, server)
    servers.delete(server)
    volumes.wait(volume, "available")
    assert ring_number(volumes, volume, safe) >= safe


def snapshot_is_cinders(
    stack: Testbed, volumes: Volumes, volume: Volume, server: Server
) -> None:
    """Assert that a server's image names Cinder's snapshot and has no data."""
    connection = stack.openstack.connection()
    disks = rbd_view.images(stack.cluster, "vms")
    image = connection.compute.create_server_image(
        server.id, "of-a-volume", wait=True, timeout=60
    )
    mapping = json.loads(image.properties["block_device_mapping"])
    named = [m["snapshot_id"] for m in mapping if m["snapshot_id"]]
    assert named == volumes.snapshots(volume) != []
    assert rbd_view.left(stack.cluster, "snapshots") == []
    for name in disks:
        assert rbd_view.snaps(stack.cluster, "vms", name) == []
    stack.servers().delete_image(image)


def boot_from(stack: Testbed, volume: Volume, flavor: Flavor) -> Server:
    """Boot a server with the volume as its root disk."""
    root = {
        "boot_index": 0,
        "uuid": volume.id,
        "source_type": "volume",
        "destination_type": "volume",
        "delete_on_termination": False,
    }
    server = stack.openstack.connection().compute.create_server(
        name="from-volume",
        image_id="",
        flavor_id=flavor.id,
        networks="none",
        config_drive=True,
        availability_zone=FIRST,
        block_device_mapping=[root],
    )
    return stack.servers().wait(server)


def wait_for_label(stack: Testbed, server: Server, there: bool = True) -> None:
    """Wait until the guest sees a disk with the volume's label, or none."""
    console = stack.console(server)

    def seen() -> bool:
        disks = console_.read(console).disks.values()
        return LABEL in [disk["label"] for disk in disks]

    wait_for(
        f"the guest sees {'the' if there else 'no'} volume in {console}",
        lambda: seen() == there,
        GUEST_SECONDS,
    )


def last_number(volumes: Volumes, volume: Volume) -> int:
    """The last number that the guest's writer has written, at first 0."""
    sector = volumes.read(volume, NUMBER_SECTOR * SECTOR, SECTOR)
    found = re.match(rb"NUMBER (\d+) ", sector)
    return int(found[1]) if found else 0


def wait_for_next_number(volumes: Volumes, volume: Volume) -> int:
    """Wait until the guest has written to the volume once more."""
    before = last_number(volumes, volume)

    def later() -> int:
        number = last_number(volumes, volume)
        return number if number > before else 0

    return wait_for(
        f"the guest writes a number after {before} to volume {volume.id}",
        later,
        GUEST_SECONDS,
    )


def ring_number(volumes: Volumes, volume: Volume, number: int) -> int:
    """The number that the guest's ring now has in the place of ``number``."""
    first, sectors, _ = disk_.RING
    offset = (first + number % sectors) * SECTOR
    found = re.match(rb"COUNTER (\d+) ", volumes.read(volume, offset, SECTOR))
    assert found, f"no number at {offset} of volume {volume.id}"
    return int(found[1])


def extent(written: tuple[int, bytes]) -> tuple[int, int]:
    """Offset and length of what was written."""
    offset, data = written
    return offset, len(data)
