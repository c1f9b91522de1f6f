# SPDX-License-Identifier: Apache-2.0

"""A pool that holds less than Nova can tell Placement, in a real Placement.

Nova's own update_provider_tree() makes the report, on libvirt's test
hypervisor.
"""

import uuid

import pytest
from oslo_config import cfg
from oslo_utils import units

from tests.nova.conftest import needs_native_nova
from tests.support.clients import set_quota

pytestmark = needs_native_nova

FAST = "CUSTOM_RBD_FAST_GB"
# Far from a whole number of GiB, which is what Nova reports.
LARGE = 4 * units.Gi + 512 * units.Mi


class Placement:
    """A Placement with this host's provider, and its tree in Nova."""

    def __init__(self, client):
        from nova.compute import provider_tree

        self.client = client
        self.uuid = self.node = str(uuid.uuid4())
        self.path = f"/resource_providers/{self.uuid}"
        self.tree = provider_tree.ProviderTree()
        self.tree.new_root(self.node, self.uuid)
        client.post(
            "/resource_providers", json={"uuid": self.uuid, "name": self.node}
        )
        client.put(f"/resource_classes/{FAST}")

    def report(self, driver):
        """Do as Nova's resource tracker; return the inventory."""
        driver.update_provider_tree(self.tree, self.node)
        inventory = self.tree.data(self.node).inventory
        generation = self.client.get(self.path).json()["generation"]
        answer = self.client.put(
            f"{self.path}/inventories",
            json={
                "resource_provider_generation": generation,
                "inventories": inventory,
            },
        )
        assert answer.status_code == 200, answer.text
        return inventory

    def allocate(self, **resources):
        answer = self.client.put(
            f"/allocations/{uuid.uuid4()}",
            json={
                "allocations": {self.uuid: {"resources": resources}},
                "project_id": "p",
                "user_id": "u",
                "consumer_generation": None,
                "consumer_type": "INSTANCE",
            },
        )
        assert answer.status_code == 204, answer.text

    def has_room(self, resource_class):
        """Return whether Nova's scheduler would choose this host."""
        answer = self.client.get(
            f"/allocation_candidates?resources={resource_class}:1"
        )
        return self.uuid in answer.json()["provider_summaries"]


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """Placement itself, without a server; a process can have only one."""
    from placement import conf as placement_conf
    from placement import direct

    conf = cfg.ConfigOpts()
    placement_conf.register_opts(conf)
    for name, value in {
        "connection": f"sqlite:///{tmp_path_factory.mktemp('db')}/p.db",
        "sync_on_startup": True,
    }.items():
        conf.set_override(name, value, group="placement_database")
    conf([], default_config_files=[])
    with direct.PlacementDirect(conf, latest_microversion=True) as client:
        yield client


@pytest.fixture
def placement(client):
    return Placement(client)


@pytest.fixture
def quota(ceph, pools):
    """Return a function that sets how many bytes a pool may hold more.

    What it holds may still change, because the OSDs tell it late.
    """

    def have(pool, wanted_bytes):
        used = pools.vms.cluster.capacity(pool).used_bytes
        with ceph.admin() as admin:
            set_quota(admin, pool, used + wanted_bytes, field="max_bytes")

    yield have
    with ceph.admin() as admin:
        for pool in ("vms", "snapshots"):
            set_quota(admin, pool, 0, field="max_bytes")


def test_pools_in_use_that_hold_nothing_more(
    pools, classes, driver, placement, quota
):
    """Placement refuses a report without a class that is in use."""
    quota("vms", LARGE)
    quota("snapshots", LARGE)
    before = placement.report(driver)
    assert before["DISK_GB"]["reserved"] == before[FAST]["reserved"] == 0
    placement.allocate(DISK_GB=2, **{FAST: 2})
    for pool in ("vms", "snapshots"):
        quota(pool, 100 * units.Mi)

    found = placement.report(driver)
    for name in ("DISK_GB", FAST):
        assert found[name]["reserved"] == found[name]["total"] == 1
        assert not placement.has_room(name)
    assert found["VCPU"] == before["VCPU"]

    for pool in ("vms", "snapshots"):
        quota(pool, LARGE)
    assert placement.report(driver) == before
    assert placement.has_room("DISK_GB")
    assert placement.has_room(FAST)


def test_new_host_with_a_small_pool(pools, driver, placement, quota):
    quota("vms", 100 * units.Mi)
    placement.report(driver)
    assert not placement.has_room("DISK_GB")


def test_more_is_reserved_than_the_pool_holds(pools, driver, placement, quota):
    """As by a reserved_host_disk_mb that suits another pool."""
    pools.conf(reserved_host_disk_mb=10 * units.Ki)
    quota("vms", LARGE)
    found = placement.report(driver)["DISK_GB"]
    assert found["reserved"] == found["total"]
    assert not placement.has_room("DISK_GB")
