# SPDX-License-Identifier: Apache-2.0

"""image-create of running servers, into the pool for snapshots."""

import dataclasses
import re
import uuid
from collections.abc import Iterator

import pytest
from openstack.compute.v2.flavor import Flavor
from openstack.compute.v2.server import Server
from openstack.image.v2.image import Image

from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.disks import delete
from nova_rbd_backend.storage.images import purge
from nova_rbd_backend.storage.snapshots import make as snapshots
from tests.e2e import proof
from tests.e2e.conftest import Images, Tell
from tests.e2e.image_create import snapshot
from tests.support.clients import connect
from tests.support.clusters import end_periods
from tests.support.old_images import make_old
from tests.testbed.ceph import rbd_view
from tests.testbed.guest import building as guest
from tests.testbed.openstack.servers import Servers
from tests.testbed.process import wait_for
from tests.testbed.whole import Testbed

pytestmark = pytest.mark.timeout(400)

DETACH_SECONDS = 60


def in_pool(stack: Testbed) -> dict[str, rbd_view.ImageView]:
    return rbd_view.images(stack.cluster, "snapshots")


def test_server_is_deleted_first(
    stack: Testbed, images: Images, servers: Servers, flavor: Flavor
) -> None:
    server = servers.boot("deleted-first", images.qcow2, flavor)
    safe = proof.written(stack, server)
    image = snapshot(stack, server, "outlives-its-server")
    servers.delete(server)
    again = servers.boot("from-snapshot", image, flavor)
    proof.kept(stack, again, safe, boots=2)
    servers.delete(again)
    servers.delete_image(image)


@pytest.fixture(scope="module")
def agent_image(stack: Testbed, guest_image: guest.GuestImage) -> Image:
    """An image whose guests take a snapshot only if their agent can freeze."""
    image = stack.servers().upload("agent", guest_image.raw, "raw", "rbd")
    updated: Image = stack.openstack.connection().image.update_image(
        image, hw_qemu_guest_agent="yes", os_require_quiesce="yes"
    )
    return updated


def wait_for_agent(stack: Testbed, server: Server) -> None:
    """Wait until the guest's agent answers libvirt."""
    command = ["virsh", "domfsinfo", server.id]
    wait_for(
        f"the agent of {server.id} answers",
        lambda: (
            stack.hosts[0].run(command, capture_output=True).returncode == 0
        ),
        60,
        0.5,
    )


def test_boots_with_all_that_was_flushed(
    stack: Testbed,
    agent_image: Image,
    servers: Servers,
    flavor: Flavor,
    tell: Tell,
) -> None:
    """The guest's file systems are frozen for a moment.

    The snapshot is deleted while a server that booted from it runs.
    """
    server = servers.boot("snapshot", agent_image, flavor)
    safe = proof.written(stack, server)
    wait_for_agent(stack, server)
    log = stack.compute(stack.hosts[0]).log
    before = log.stat().st_size
    took = proof.Watch()
    image = snapshot(stack, server, "of-a-server")
    tell(f"image-create of a running server: {took}")
    with log.open() as file:
        file.seek(before)
        (seconds,) = re.findall(r"were frozen for ([\d.]+) s", file.read())
    tell(f"the guest's file systems were frozen for {seconds} s")
    assert float(seconds) < 1
    proof.went_on(stack, server, safe)
    assert image.direct_url == (
        f"rbd://{stack.cluster.fsid}/snapshots/snapshot_{image.id}/snap"
    )
    again = servers.boot("from-snapshot", image, flavor)
    marker = proof.kept(stack, again, safe, boots=2)
    wait_for(
        "the snapshot is detached",
        lambda: in_pool(stack)[f"snapshot_{image.id}"].parent is None,
        DETACH_SECONDS,
    )
    servers.delete_image(image)
    servers.delete(server)
    proof.went_on(stack, again, marker["counter"])


@pytest.fixture
def no_agent_image(stack: Testbed, agent_image: Image) -> Iterator[Image]:
    glance = stack.openstack.connection().image
    glance.update_image(agent_image, hw_qemu_guest_agent="no")
    yield agent_image
    glance.update_image(agent_image, hw_qemu_guest_agent="yes")


def test_no_snapshot_if_the_required_quiesce_fails(
    stack: Testbed, no_agent_image: Image, servers: Servers, flavor: Flavor
) -> None:
    server = servers.boot("no-agent", no_agent_image, flavor)
    safe = proof.written(stack, server)
    compute = stack.openstack.connection().compute
    compute.create_server_image(server.id, "refused")
    servers.wait(server)
    proof.went_on(stack, server, safe)
    assert not in_pool(stack)
    glance = stack.openstack.connection().image
    assert not list(glance.images(name="refused"))


@pytest.fixture
def glance_takes_no_location(stack: Testbed) -> Iterator[None]:
    """Send snapshots to a pool that none of Glance's stores uses."""
    host = stack.hosts[0]
    stack.restart_compute(
        host, {"DEFAULT": {"libvirt_images_snapshot_store": "vms"}}
    )
    yield
    stack.restart_compute(host)


@pytest.mark.usefixtures("glance_takes_no_location")
def test_uploaded_where_glance_takes_no_location(
    stack: Testbed,
    images: Images,
    servers: Servers,
    tell: Tell,
) -> None:
    as_image = servers.flavor("as-large-as-the-image", disk_gib=0)
    server = servers.boot("uploaded", images.raw, as_image)
    safe = proof.written(stack, server)
    took = proof.Watch()
    image = snapshot(stack, server, "uploaded")
    tell(f"image-create by upload of {image.size >> 20} MiB: {took}")
    assert "/images/" in image.direct_url
    proof.went_on(stack, server, safe)
    wait_for(
        "the clone that was uploaded is gone",
        lambda: rbd_view.left(stack.cluster, "vms") == [f"{server.id}_disk"],
        60,
    )
    again = servers.boot("from-upload", image, as_image)
    proof.kept(stack, again, safe, boots=2)
    servers.delete(again)
    servers.delete_image(image)


def test_snapshot_of_another_cloud_stays(stack: Testbed) -> None:
    """The other cloud has its own Glance, and its host never returns."""
    ceph = connect(stack.cluster)
    disks, target = Pool(ceph, "vms"), Pool(ceph, "snapshots")
    instance, image_id = str(uuid.uuid4()), str(uuid.uuid4())
    disk = f"{instance}_disk"
    disks.create(disk, 1 << 20)
    making = snapshots.begin(target, disks, disk, image_id)
    snapshots.snap(making)
    entry = snapshots.publish(
        target, making, {"nova.instance": instance}
    ).detachment
    make_old(target, entry.image_id, 2 * 24 * 3600)
    left = dataclasses.replace(
        entry,
        host="of-another-cloud",
        begun_at=entry.begun_at - 2 * 24 * 3600,
        offer=journal.Offer.UNDER_WAY,
    ).encoded()
    assert target.objects.omap_swap(
        journal.OBJECT, entry.key, entry.stored, left.stored
    )
    with stack.cluster.admin() as admin:
        end_periods(admin, str(target))  # one of the hosts looks in each
    host = stack.hosts[0]
    stack.restart_compute(host)
    told = f"snapshots/{entry.image}, left by of-another-cloud, stays"
    wait_for(
        "the host has looked at the snapshot",
        lambda: told in stack.compute(host).log.read_text(),
        DETACH_SECONDS,
    )
    assert entry.image in in_pool(stack)
    snapshots.remove(target, left)
    delete.delete_disk(disks, disk)
    for pool in (target, disks):
        purge.purge(pool)
    assert entry.image not in in_pool(stack)
