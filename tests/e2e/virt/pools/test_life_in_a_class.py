# SPDX-License-Identifier: Apache-2.0

"""Servers whose disks are in the pool of a storage class."""

from collections.abc import Iterator

import pytest
from openstack.compute.v2.flavor import Flavor
from openstack.exceptions import BadRequestException, raise_from_response

from tests.e2e import proof
from tests.e2e.conftest import FIRST, Images
from tests.e2e.image_create import snapshot
from tests.testbed.ceph import pools, rbd_view, users
from tests.testbed.conf_file import Conf
from tests.testbed.host.compute_host import ComputeHost
from tests.testbed.openstack.servers import ServerFault, Servers
from tests.testbed.process import wait_for
from tests.testbed.whole import Testbed

pytestmark = pytest.mark.timeout(400)

POOL = "vms-fast"
CLASSES: Conf = {
    "nova_rbd": {"storage_classes": "fast"},
    "nova_rbd_class_fast": {"pool": POOL, "object_size": "1M"},
}
RESOURCE = "CUSTOM_RBD_FAST_GB"
FLAVORS = ("fast", "slow-1", "slow-2")
# Microversions from 2.86 on validate extra specs.
UNCHECKED = "2.60"
GONE_SECONDS = 60


@pytest.fixture(scope="module")
def classes(stack: Testbed) -> Iterator[None]:
    """A second pool, and a class for it on both hosts and in nova-api."""
    import rbd

    rights = {"nova": "profile rbd", "glance": "profile rbd-read-only"}
    with stack.cluster.admin() as admin:
        pools.command(admin, "osd pool create", pool=POOL, pg_num=8)
        with admin.open_ioctx(POOL) as ioctx:
            rbd.RBD().pool_init(ioctx, True)
        for user, right in rights.items():
            set_caps(admin, user, f", {right} pool={POOL}")
    stack.restart_computes(CLASSES)
    stack.openstack.restart_nova_api({"nova_rbd": {"storage_classes": "fast"}})
    yield
    nova = stack.openstack.connection().compute
    for name in FLAVORS:
        nova.delete_flavor(nova.find_flavor(name))
    stack.openstack.restart_nova_api({})
    with stack.cluster.admin() as admin:
        pools.command(
            admin,
            "config set",
            who="mon",
            name="mon_allow_pool_delete",
            value="true",
        )
        pools.command(
            admin,
            "osd pool delete",
            pool=POOL,
            pool2=POOL,
            yes_i_really_really_mean_it=True,
        )
        for user in rights:
            set_caps(admin, user, "")
    # The registry still has the pool; a nova-compute that starts removes it.
    stack.restart_computes()
    assert RESOURCE not in inventory(stack, stack.hosts[0])


def inventory(stack: Testbed, host: ComputeHost) -> dict[str, object]:
    """What Placement knows of a host, by resource class."""
    placement = stack.openstack.connection().placement
    (found,) = placement.resource_providers(name=host.name)
    answer = placement.get(f"/resource_providers/{found.id}/inventories")
    return dict(answer.json()["inventories"])


def set_caps(admin: object, user: str, more: str) -> None:
    """Give a user the documented caps, with ``more`` of them on OSDs."""
    caps = users.documented_caps(user)
    caps["osd"] += more
    pools.command(
        admin,  # type: ignore[arg-type]
        "auth caps",
        entity=f"client.{user}",
        caps=[text for pair in caps.items() for text in pair],
    )


def flavor(
    stack: Testbed, name: str, specs: dict[str, str], checked: bool = True
) -> Flavor:
    """Make a flavor with a root disk, a swap disk and these extra specs.

    :param checked: whether Nova's API validates the specs
    """
    nova = stack.openstack.connection().compute
    made = stack.servers().flavor(name, disk_gib=1, swap_mib=64)
    answer = nova.post(
        f"/flavors/{made.id}/os-extra_specs",
        json={"extra_specs": specs},
        microversion="2.90" if checked else UNCHECKED,
    )
    raise_from_response(answer)
    return made


def test_life_in_a_class(
    stack: Testbed,
    images: Images,
    servers: Servers,
    classes: None,
    other_host: ComputeHost,
) -> None:
    fast = flavor(
        stack,
        "fast",
        {
            "nova_rbd:class": "fast",
            "nova_rbd:swap_class": "default",
            f"resources:{RESOURCE}": "1",
            "resources:DISK_GB": "1",
        },
    )
    server = servers.boot("fast", images.raw, fast, availability_zone=FIRST)
    root = f"{server.id}_disk"
    (found,) = rbd_view.images(stack.cluster, POOL).values()
    assert found.name == root
    assert found.metadata["nova.class"] == "fast"
    assert set(rbd_view.images(stack.cluster, "vms")) == {f"{root}.swap"}
    assert allocated(stack, server.id)[RESOURCE] == 1

    safe = proof.written(stack, server)
    image = snapshot(stack, server, "of-a-class")
    assert image.direct_url.split("/")[3] == "snapshots"
    stack.moves().live(server, other_host.name)
    safe = proof.went_on(stack, server, safe)
    stack.moves().cold(server, stack.hosts[0].name)
    proof.kept(stack, server, safe, boots=2)
    # The disks are the same as before: neither was made a second time.
    assert set(rbd_view.images(stack.cluster, POOL)) == {root}
    assert set(rbd_view.images(stack.cluster, "vms")) == {f"{root}.swap"}

    servers.delete(server)
    servers.delete_image(image)
    wait_for(
        f"nothing is left in {POOL}",
        lambda: not rbd_view.left(stack.cluster, POOL),
        GONE_SECONDS,
    )
    assert not rbd_view.images(stack.cluster, "vms")


def allocated(stack: Testbed, server_id: str) -> dict[str, int]:
    """What a server has allocated, by resource class, of all providers."""
    placement = stack.openstack.connection().placement
    found = placement.get(f"/allocations/{server_id}").json()["allocations"]
    return {
        name: amount
        for provider in found.values()
        for name, amount in provider["resources"].items()
    }


def test_nova_api_refuses_an_unknown_class(
    stack: Testbed, classes: None
) -> None:
    with pytest.raises(BadRequestException, match="'slow' is no storage"):
        flavor(stack, "slow-1", {"nova_rbd:root_class": "slow"})


def test_nova_compute_refuses_an_unknown_class(
    stack: Testbed, images: Images, servers: Servers, classes: None
) -> None:
    slow = flavor(
        stack, "slow-2", {"nova_rbd:swap_class": "slow"}, checked=False
    )
    with pytest.raises(ServerFault) as caught:
        servers.boot("slow", images.raw, slow)
    assert "asks for storage class 'slow'" in caught.value.message
    assert "[nova_rbd] storage_classes" in caught.value.message
