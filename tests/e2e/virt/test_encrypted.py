# SPDX-License-Identifier: Apache-2.0

"""Servers whose flavor asks for encrypted disks, as Nova 34 makes them."""

import pytest
import rbd
from openstack.compute.v2.flavor import Flavor
from openstack.compute.v2.server import Server
from openstack.image.v2.image import Image

from tests.e2e import proof
from tests.e2e.conftest import FIRST, Images, wait_until_at_home
from tests.support.encrypted import decrypted, needs_encrypted_clones
from tests.testbed.ceph import rbd_view
from tests.testbed.host.compute_host import ComputeHost
from tests.testbed.openstack.importable.file_keys import FOLDER
from tests.testbed.openstack.servers import ServerFault, Servers
from tests.testbed.whole import Testbed

pytestmark = [pytest.mark.timeout(400), needs_encrypted_clones]
GIB = 1 << 30
HEADER = 16 << 20
BLOCK = 4096


@pytest.fixture
def flavor(stack: Testbed, servers: Servers) -> Flavor:
    """A flavor that asks for encryption, with a disk of each kind."""
    found = servers.flavor(
        "encrypted", disk_gib=1, ephemeral_gib=1, swap_mib=64
    )
    stack.openstack.connection().compute.create_flavor_extra_specs(
        found,
        {
            "hw:ephemeral_encryption": "true",
            "hw:ephemeral_encryption_format": "luks",
        },
    )
    return found


def virsh(host: ComputeHost, *words: str) -> str:
    done = host.run(
        ["virsh", *words], capture_output=True, text=True, check=True
    )
    return str(done.stdout)


def secrets(host: ComputeHost, server: Server) -> dict[str, bytes]:
    """The passphrases of a server's disks that libvirt has, by UUID."""
    lines = virsh(host, "secret-list").splitlines()
    uuids = [line.split()[0] for line in lines if server.id in line]
    return {
        uuid: virsh(host, "secret-get-value", "--plain", uuid).strip().encode()
        for uuid in uuids
    }


def in_key_manager() -> set[str]:
    """The secrets that Nova can get back."""
    return {path.name for path in FOLDER.iterdir()}


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_boots_and_starts_again(
    stack: Testbed,
    servers: Servers,
    images: Images,
    flavor: Flavor,
    kind: str,
) -> None:
    server = servers.boot("boots", getattr(images, kind), flavor)
    marker = stack.wait_for_guest(server).markers[-1]
    by_size = {d["bytes"]: d["type"] for d in marker["disks"].values()}
    assert by_size[64 << 20] == "swap"
    assert marker["disks"]["vda"]["bytes"] == GIB
    safe = proof.written(stack, server)
    disks = rbd_view.images(stack.cluster, "vms")
    for disk in ("disk", "disk.eph0"):
        view = disks[f"{server.id}_{disk}"]
        assert view.size_bytes == GIB + HEADER
        assert view.metadata["nova.encryption"] == f"luks2:{HEADER}"
    stack.openstack.connection().compute.reboot_server(server.id, "HARD")
    servers.wait(server)
    proof.kept(stack, server, safe, 2)
    keys = secrets(stack.hosts[0], server)
    assert len(keys) == 3
    assert keys.keys() <= in_key_manager()
    servers.delete(server)
    assert not secrets(stack.hosts[0], server)
    assert not keys.keys() & in_key_manager()


def test_ceph_has_ciphertext(
    stack: Testbed, servers: Servers, images: Images, flavor: Flavor
) -> None:
    """What the guest has written is in no object as it has written it."""
    server = servers.boot("cipher", images.raw, flavor)
    proof.written(stack, server)
    name = f"{server.id}_disk"
    own: list[tuple[int, int]] = []
    with (
        stack.cluster.admin() as admin,
        admin.open_ioctx("vms") as ioctx,
        rbd.Image(ioctx, name, read_only=True) as image,
    ):
        image.diff_iterate(
            *(0, image.size(), None),
            lambda offset, length, exists: own.append((offset, length)),
            include_parent=False,
        )
        raw = {
            offset: image.read(offset, length)
            for offset, length in own
            if offset >= HEADER
        }
    (key,) = [
        each
        for each in secrets(stack.hosts[0], server).values()
        if opens(stack, name, each)
    ]
    written = 0
    with decrypted(stack.cluster, name, key) as image:
        for offset, data in raw.items():
            plain = image.read(offset - HEADER, len(data))
            for at in range(0, len(data), BLOCK):
                block = plain[at : at + BLOCK]
                if any(block):
                    written += 1
                    assert block not in data
    assert written > 10


def opens(stack: Testbed, name: str, key: bytes) -> bool:
    try:
        with decrypted(stack.cluster, name, key):
            return True
    except rbd.PermissionError:
        return False


def test_refused_rather_than_made_in_plain(
    stack: Testbed, servers: Servers, images: Images, flavor: Flavor
) -> None:
    """No snapshot, and no rescue that shows the disks as they are in Ceph."""
    nova = stack.openstack.connection().compute
    server = servers.boot("refused", images.raw, flavor)
    stack.wait_for_guest(server)
    safe = proof.written(stack, server)
    before = {
        image.id for image in stack.openstack.connection().image.images()
    }
    nova.create_server_image(server.id, "it", wait=False)
    servers.wait(server)
    after = {image.id for image in stack.openstack.connection().image.images()}
    assert after <= before
    nova.rescue_server(server, image_ref=images.raw.id)
    with pytest.raises(ServerFault, match="hw_rescue_device"):
        servers.wait(server, "RESCUE")
    # Nova shuts a guest down before it asks whether it can be rescued.
    nova.reset_server_state(server, "active")
    nova.reboot_server(server.id, "HARD")
    servers.wait(server)
    proof.kept(stack, server, safe, 2)
    safe = proof.written(stack, server)
    nova.shelve_server(server)
    servers.wait(server)
    proof.went_on(stack, server, safe)


def test_rescued_beside_its_own_disks(
    stack: Testbed,
    servers: Servers,
    images: Images,
    flavor: Flavor,
    rescue_image: Image,
) -> None:
    """This guest mounts the first root disk, which is the encrypted one."""
    cloud = stack.openstack.connection()
    server = servers.boot("rescued", images.raw, flavor)
    stack.wait_for_guest(server)
    safe = proof.written(stack, server)
    cloud.compute.rescue_server(server, image_ref=rescue_image.id)
    servers.wait(server, "RESCUE")
    proof.kept(stack, server, safe, boots=2)
    safe = proof.written(stack, server)
    cloud.compute.unrescue_server(server)
    servers.wait(server)
    proof.kept(stack, server, safe, boots=3)


def test_rebuilt_and_resized(
    stack: Testbed, servers: Servers, images: Images, flavor: Flavor
) -> None:
    nova = stack.openstack.connection().compute
    server = servers.boot("rebuilt", images.raw, flavor)
    proof.written(stack, server)
    before = secrets(stack.hosts[0], server)
    nova.rebuild_server(server.id, image=images.qcow2.id)
    servers.wait(server)
    stack.wait_for_guest(server)
    assert secrets(stack.hosts[0], server) == before
    safe = proof.written(stack, server)
    big = servers.flavor("encrypted-2", 2, ephemeral_gib=1, swap_mib=128)
    nova.create_flavor_extra_specs(big, {"hw:ephemeral_encryption": "true"})
    stack.moves().resize(server, big.id, stack.hosts[0].name)
    marker = proof.kept(stack, server, safe, 2)
    assert marker["disks"]["vda"]["bytes"] == 2 * GIB
    by_size = {d["bytes"]: d["type"] for d in marker["disks"].values()}
    assert by_size[128 << 20] == "swap"
    stack.moves().confirm(server)


@pytest.fixture
def moved(
    stack: Testbed,
    servers: Servers,
    images: Images,
    flavor: Flavor,
    other_host: ComputeHost,
) -> Server:
    """A server on the first of two hosts."""
    server = servers.boot("moved", images.raw, flavor, availability_zone=FIRST)
    stack.wait_for_guest(server)
    return server


def test_live_migration_there_and_back(
    stack: Testbed, moved: Server, other_host: ComputeHost
) -> None:
    keys = secrets(stack.hosts[0], moved)
    here, there = stack.hosts[0], other_host
    for _ in range(2):
        safe = proof.written(stack, moved)
        stack.moves().live(moved, there.name)
        proof.went_on(stack, moved, safe)
        assert secrets(there, moved) == keys
        assert not secrets(here, moved)
        here, there = there, here


def test_cold_migration_and_revert(
    stack: Testbed, moved: Server, other_host: ComputeHost
) -> None:
    first, keys = stack.hosts[0], secrets(stack.hosts[0], moved)
    safe = proof.written(stack, moved)
    stack.moves().cold(moved, other_host.name)
    proof.kept(stack, moved, safe, 2)
    assert (secrets(other_host, moved), secrets(first, moved)) == (keys, {})


def test_evacuated(
    stack: Testbed, moved: Server, other_host: ComputeHost
) -> None:
    safe = proof.written(stack, moved)
    keys = secrets(stack.hosts[0], moved)
    stack.cut_power(stack.hosts[0])
    try:
        stack.declare_down(stack.hosts[0])
        stack.moves().evacuate(moved, other_host.name)
        proof.kept(stack, moved, safe, 2)
        assert secrets(other_host, moved) == keys
    finally:
        stack.restore_power(stack.hosts[0])
    wait_until_at_home(stack)
    assert not secrets(stack.hosts[0], moved)


def test_secret_is_fetched_again(
    stack: Testbed, servers: Servers, images: Images, flavor: Flavor
) -> None:
    """As on a host whose libvirt was installed anew."""
    nova = stack.openstack.connection().compute
    host = stack.hosts[0]
    server = servers.boot("again", images.raw, flavor)
    stack.wait_for_guest(server)
    safe = proof.written(stack, server)
    before = secrets(host, server)
    nova.stop_server(server)
    servers.wait(server, "SHUTOFF")
    for uuid in before:
        virsh(host, "secret-undefine", uuid)
    nova.start_server(server)
    servers.wait(server)
    proof.kept(stack, server, safe, 2)
    assert secrets(host, server) == before
