# SPDX-License-Identifier: Apache-2.0

"""An image that cannot be cloned is copied into Ceph once, for all hosts."""

import pathlib
from collections.abc import Iterator

import pytest
from openstack.compute.v2.aggregate import Aggregate
from openstack.compute.v2.flavor import Flavor
from openstack.exceptions import raise_from_response
from openstack.image.v2.image import Image

from tests.e2e import proof
from tests.e2e.conftest import FIRST, Images, Tell
from tests.testbed.ceph import rbd_view
from tests.testbed.guest import building as guest
from tests.testbed.host.compute_host import ComputeHost
from tests.testbed.openstack.servers import ServerFault, Servers
from tests.testbed.process import wait_for
from tests.testbed.whole import Testbed

pytestmark = pytest.mark.timeout(300)

SECOND = "nova:host2"
AGEING_SECONDS = 60


@pytest.fixture
def image(
    servers: Servers, stack: Testbed, guest_image: guest.GuestImage
) -> Iterator[Image]:
    """The guest as a qcow2 that nobody has booted yet."""
    image = servers.upload("new", guest_image.qcow2, "qcow2", "file")
    yield image
    stack.openstack.connection().image.delete_image(image)


def bases(stack: Testbed, image: Image) -> list[rbd_view.ImageView]:
    return [
        base
        for base in rbd_view.bases(stack.cluster, "vms").values()
        if base.metadata.get("nova.image") == image.id
    ]


def makings(stack: Testbed, image: Image) -> list[str]:
    """Lines in the nova-computes' logs that tell of a base of the image."""
    return [
        line
        for host in stack.hosts
        for line in stack.compute(host).log.read_text().splitlines()
        if f"Made base vms/nova-base_{image.id}" in line
    ]


def test_one_copy_for_two_hosts_at_once(
    stack: Testbed,
    image: Image,
    servers: Servers,
    flavor: Flavor,
    other_host: ComputeHost,
    tell: Tell,
) -> None:
    watch = proof.Watch()
    asked = [
        servers.create(f"many{number}", image, flavor, availability_zone=zone)
        for number, zone in enumerate((FIRST, SECOND) * 2)
    ]
    for server in asked:
        servers.wait(server)
    tell(f"4 servers of a new qcow2 image on 2 hosts in {watch}")
    (base,) = bases(stack, image)
    assert len(makings(stack, image)) == 1
    disks = rbd_view.images(stack.cluster, "vms")
    for server in asked:
        assert disks[f"{server.id}_disk"].parent == f"vms/{base.name}@base"
    assert base.metadata["nova.image_hash"] == (
        f"{image.hash_algo}:{image.hash_value}"
    )
    for host in stack.hosts:
        assert not stack.cached_images(host)
    stack.wait_for_guest(asked[-1])


def test_image_damaged_in_glances_store(
    stack: Testbed, image: Image, servers: Servers, flavor: Flavor
) -> None:
    store = stack.openstack.site.folder / "glance/files"
    (file,) = (path for path in store.rglob(image.id) if path.is_file())
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(ServerFault, match="Corrupt image download"):
        servers.boot("damaged", image, flavor)
    assert bases(stack, image) == []
    assert not stack.cached_images(stack.hosts[0])


@pytest.fixture
def aggregate(stack: Testbed) -> Iterator[Aggregate]:
    """Both hosts together."""
    nova = stack.openstack.connection().compute
    found = nova.create_aggregate(name="both")
    for host in stack.hosts:
        nova.add_host_to_aggregate(found, host.name)
    yield found
    for host in stack.hosts:
        nova.remove_host_from_aggregate(found, host.name)
    nova.delete_aggregate(found)


def test_cached_before_the_first_boot(
    stack: Testbed,
    aggregate: Aggregate,
    image: Image,
    images: Images,
    servers: Servers,
    flavor: Flavor,
    other_host: ComputeHost,
) -> None:
    nova = stack.openstack.connection().compute
    ids = [{"id": image.id}, {"id": images.raw.id}]
    answer = nova.post(
        f"/os-aggregates/{aggregate.id}/images",
        json={"cache": ids},
        microversion="2.81",
    )
    raise_from_response(answer)
    wait_for("the base is made", lambda: bases(stack, image), 60)
    wait_for("one host has logged that", lambda: makings(stack, image), 10)
    assert bases(stack, images.raw) == []  # cloned where it is
    server = servers.boot("cached", image, flavor)
    (base,) = bases(stack, image)
    disk = rbd_view.images(stack.cluster, "vms")[f"{server.id}_disk"]
    assert disk.parent == f"vms/{base.name}@base"
    assert len(makings(stack, image)) == 1
    for host in stack.hosts:
        assert not stack.cached_images(host)


def test_leftover_of_the_local_cache_does_not_prevent_cloning(
    stack: Testbed, images: Images, servers: Servers, flavor: Flavor
) -> None:
    # A backend with local files leaves such a file, named by the SHA-1 of the
    # image's id.
    import hashlib

    name = hashlib.sha1(images.raw.id.encode()).hexdigest()
    folder = stack.hosts[0].folder / "state/instances/_base"
    leftover = pathlib.Path(folder, name)
    leftover.write_bytes(b"stale" * 1000)
    try:
        server = servers.boot("clone", images.raw, flavor)
    finally:
        leftover.unlink()
    disk = rbd_view.images(stack.cluster, "vms")[f"{server.id}_disk"]
    assert disk.parent == f"images/{images.raw.id}@snap"


@pytest.fixture
def ageing(stack: Testbed) -> Iterator[None]:
    """Let the first host remove bases that are unused for a second.

    It looks for them every two seconds.
    """
    host = stack.hosts[0]
    settings = {
        "manager_interval": 2,
        "remove_unused_base_images": True,
        "remove_unused_original_minimum_age_seconds": 1,
    }
    stack.restart_compute(host, {"image_cache": settings})
    yield
    stack.restart_compute(host)


def test_unused_base_is_removed(
    stack: Testbed,
    image: Image,
    servers: Servers,
    flavor: Flavor,
    ageing: None,
) -> None:
    server = servers.boot("last", image, flavor)
    assert bases(stack, image)
    servers.delete(server)
    wait_for(
        "the base, of which no disk is a clone, is gone",
        lambda: not bases(stack, image),
        AGEING_SECONDS + 60,
        interval_seconds=1,
    )
    wait_for(
        "its space is free",
        lambda: not rbd_view.trash(stack.cluster, "vms"),
        AGEING_SECONDS,
        interval_seconds=1,
    )
    servers.boot("again", image, flavor)
