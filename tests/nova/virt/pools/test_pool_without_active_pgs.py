# SPDX-License-Identifier: Apache-2.0

"""A pool whose PGs are inactive stops only what needs that pool.

Class ``fast`` has the pool ``snapshots``, which answers nothing here.
"""

import contextlib
import uuid

import pytest

from nova_rbd_backend.ceph import cluster
from tests.nova.images import MIB, cache, never, rbd
from tests.support.clients import inactive

SECONDS = 4  # a busy machine takes more than two for what does answer
DOMAIN = """
<domain type='test'>
  <name>guest-{uuid}</name><uuid>{uuid}</uuid><memory>1024</memory>
  <os><type>hvm</type></os>
  <devices>
    <disk type='network' device='disk'>
      <source protocol='rbd' name='vms/{uuid}_disk'/><target dev='vda'/>
    </disk>
    <disk type='network' device='disk'>
      <source protocol='rbd' name='snapshots/volume-{uuid}'/>
      <target dev='vdb'/>
    </disk>
  </devices>
</domain>
"""


@pytest.fixture
def instance(driver, pools, classes):
    """An instance with its root disk in vms, on a host that knows fast."""
    from nova import objects
    from nova.compute import vm_states

    pools.conf(group="nova_rbd", operation_timeout_seconds=SECONDS)
    made = objects.Instance(
        id=1,
        uuid=str(uuid.uuid4()),
        project_id="p" * 32,
        host="another",
        vm_state=vm_states.ACTIVE,
        task_state=None,
        launched_at=None,
        flavor=objects.Flavor(name="some", extra_specs={}),
        system_metadata={},
        numa_topology=None,
        resources=None,
    )
    pools.vms.create(f"{made.uuid}_disk", MIB)
    return made


@pytest.fixture
def still(ceph, instance):
    """Call it in a with statement to have pool snapshots stand still."""

    @contextlib.contextmanager
    def still():
        with ceph.admin() as admin, inactive(admin, "snapshots"):
            yield

    return still


def test_guest_without_a_disk_there_starts(driver, instance, still):
    xml = DOMAIN.format(uuid=instance.uuid)
    with still():
        assert driver._create_guest(None, xml, instance).is_active()


def test_guest_with_a_disk_there_does_not_start(driver, instance, still):
    from nova import exception

    xml = DOMAIN.format(uuid=instance.uuid)
    xml = xml.replace("vms/", "snapshots/")
    with still(), pytest.raises(exception.StorageError, match="snapshots"):
        driver._create_guest(None, xml, instance)


def test_new_instance_gets_its_disks(pools, instance, glance, parent, still):
    from nova.compute import vm_states

    glance(urls=(parent,))
    instance.vm_state = vm_states.BUILDING
    pools.vms.remove(f"{instance.uuid}_disk")
    with still():
        cache(rbd(instance), never)
    assert pools.vms.directory.exists(f"{instance.uuid}_disk")


@pytest.mark.parametrize("pool", ["snapshots", "vms"])
def test_delete_frees_what_can_be_reached(ceph, driver, pools, instance, pool):
    """Also if it is the first of the pools that does not answer."""
    from nova import exception

    there = pools.vms.beside("snapshots")
    there.create(f"{instance.uuid}_disk.swap", MIB)
    with ceph.admin() as admin, inactive(admin, pool):
        with pytest.raises(exception.StorageError, match=pool):
            driver._cleanup_rbd(instance)
        (other,) = {"snapshots", "vms"} - {pool}
        found = pools.vms.beside(other).directory.names(instance.uuid)
    assert found == []
    driver._cleanup_rbd(instance)
    assert pools.vms.directory.names(instance.uuid) == []
    assert there.directory.names(instance.uuid) == []


def test_evacuation_deletes_nothing_that_it_cannot_see(
    driver, instance, still
):
    from nova_rbd_backend.virt.moves import kept_disks

    with still(), kept_disks.scope(instance):
        may_delete = kept_disks.filter_for(instance)
    assert not may_delete(f"{instance.uuid}_disk")
    assert not may_delete(f"{instance.uuid}_disk.swap")


def test_evacuation_finds_the_disks_elsewhere(driver, instance, still):
    from nova_rbd_backend.virt.pools import choice

    with still():
        driver._fence_for_evacuation(instance)
        choice.require_root(instance)


def test_rescue_is_not_stopped(driver, instance, still, monkeypatch):
    from nova.virt.libvirt import driver as nova_driver

    rescued = []
    monkeypatch.setattr(
        nova_driver.LibvirtDriver,
        "rescue",
        lambda self, context, instance, *_: rescued.append(instance),
    )
    with still():
        driver.rescue(None, instance, [], None, "password", None)
    assert rescued == [instance]


def test_purge_frees_what_can_be_reached(ceph, pools, instance):
    from nova_rbd_backend.virt import edge

    edge.store().delete(instance.uuid)
    with ceph.admin() as admin, inactive(admin, "snapshots"):
        reports, failed = edge.store().purge()
    name = f"{instance.uuid}_disk"
    assert name in [each for found in reports for each in found.purged]
    assert [error.pool for error in failed] == ["snapshots"]


def test_purge_goes_on_after_a_disk_with_a_clone_there(
    ceph, pools, instance, monkeypatch
):
    """librbd asks the pools of the clones before it removes their parent."""
    from nova_rbd_backend.virt import edge

    vms, store = pools.vms, edge.store()
    older, child = str(uuid.uuid4()), f"child-{instance.uuid}"
    vms.create(f"{older}_disk", MIB)
    with vms.open(f"{older}_disk", read_only=False) as disk:
        disk.create_snap("nova-rbd-x")
    there = vms.beside("snapshots")
    there.clone(vms, f"{older}_disk", "nova-rbd-x", child)
    store.delete(older)
    store.delete(instance.uuid)
    timed_out, drop = [], cluster.Cluster.drop

    def dropped(self, connection):
        timed_out.append(connection)
        drop(self, connection)

    monkeypatch.setattr(cluster.Cluster, "drop", dropped)
    with ceph.admin() as admin, inactive(admin, "snapshots"):
        reports, failed = store.purge()
    # Once for each look at the disk, of which there are two, and once for the
    # pool itself. A busy machine may add one.
    assert 3 <= len(set(timed_out)) <= 4
    purged = [each for found in reports for each in found.purged]
    stuck = [each.image for found in reports for each in found.stuck]
    assert f"{instance.uuid}_disk" in purged, (reports, failed)
    assert f"{older}_disk" in stuck, (reports, failed)
    there.remove(child)
    store.purge()


def test_former_pool_does_not_stop_the_start(
    ceph, pools, classes, instance, still
):
    from nova_rbd_backend.virt import edge

    edge.store().start()
    classes()
    with still():
        edge.store().start()
    assert edge.store().pool_names() == ("vms", "snapshots")
