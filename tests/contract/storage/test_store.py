# SPDX-License-Identifier: Apache-2.0

"""Hosts that share pools, each of which has its own storage classes."""

import contextlib

import pytest
import rados

from nova_rbd_backend import errors, names
from nova_rbd_backend.image_options import ImageOptions
from nova_rbd_backend.settings import Settings
from nova_rbd_backend.storage import due, journal, registry, store
from nova_rbd_backend.storage.disks import delete
from nova_rbd_backend.storage.images import purge
from nova_rbd_backend.storage_classes import StorageClass
from tests.support.blank_disks import blank_disk
from tests.support.clients import over_its_quota

MIB = 1 << 20
OPTIONS = ImageOptions(object_size_bytes=MIB)
FAST = StorageClass("fast", "snapshots", OPTIONS)


def settings(ceph, *classes):
    return Settings(
        images_type="rbd",
        pool="vms",
        snapshot_pool="vms",
        image_options=ImageOptions(),
        user="nova",
        secret_uuid=None,
        ceph_conf=str(ceph.conf),
        connect_timeout_seconds=10,
        operation_timeout_seconds=30,
        trash_retention_seconds=0,
        blocklist_seconds=60,
        import_workers=1,
        import_at_once=1,
        detach_at_once=1,
        clone_depth_soft_limit=4,
        clone_depth_hard_limit=8,
        storage_classes=classes,
    )


@pytest.fixture
def host(ceph, pool):
    """Return a function from storage classes to the Store of a host."""
    yield lambda *classes: store.Store(settings(ceph, *classes))
    for name in registry.names(pool):
        registry.remove(pool, name)


def test_pools_have_the_options_of_their_class(host):
    here = host(FAST)
    assert here.pool().name == "vms"
    assert here.pool("snapshots").options == OPTIONS
    assert here.of(FAST).options == OPTIONS
    assert here.snapshots.options == ImageOptions()
    assert host().pool("snapshots").options == ImageOptions()


def test_hosts_learn_of_each_others_pools(host):
    here, there = host(FAST), host()
    assert here.pool_names() == ("vms", "snapshots")
    there.start()
    assert there.pool_names() == ("vms",)
    here.start()
    assert there.read_pools() == ("snapshots",)
    assert there.read_pools() == ()
    assert there.pool_names() == ("vms", "snapshots")


def test_disk_in_a_pool_of_another_host(host, instance):
    here, there = host(FAST), host()
    disk = f"{instance}_disk"
    here.add_pool(FAST)
    blank_disk(here.of(FAST), disk, MIB)
    assert here.pool_of(disk) == "snapshots"
    assert here.pool_of(disk, first="snapshots") == "snapshots"
    assert here.pool_of(f"{disk}.swap") is None
    assert there.pool_of(disk, first="snapshots") is None
    assert there.pool_of_unknown(disk) == "snapshots"
    assert there.pool_of(disk) == "snapshots"
    path = names.ImagePath("snapshots", "", disk)
    there.fence_for_start(instance, [path])
    there.delete(instance)


def test_disks_of_an_instance_in_two_pools(host, instance):
    here = host(FAST)
    root, swap = f"{instance}_disk", f"{instance}_disk.swap"
    blank_disk(here.pool(), root, MIB)
    blank_disk(here.of(FAST), swap, MIB)
    assert here.disks(instance) == [root, swap]
    assert here.disks_by_pool(instance) == {"vms": [root], "snapshots": [swap]}
    reports = here.delete(instance, only=lambda name: name == swap)
    assert {pool: each.deleted for pool, each in reports.items()} == {
        "vms": (),
        "snapshots": (swap,),
    }
    here.delete(instance)
    assert here.disks(instance) == []
    reports, failed = here.purge()
    assert failed == []
    purged = [name for report in reports for name in report.purged]
    assert {root, swap} <= set(purged)


def test_pool_that_fails_is_asked_once_in_a_purge(
    host, instance, pool, monkeypatch
):
    """Each request to a silent pool takes the whole time-out."""
    registry.add(pool, "volumes", "former")  # where Nova's user may do nothing
    here = host()
    here.read_pools()
    due.note(here.pool("volumes"), f"{journal.DELETE}1f")
    blank_disk(pool, f"{instance}_disk", MIB)
    delete.delete_disks(pool, instance)
    purge_own, asked = purge.purge_own, []

    def asking(pool):
        asked.append(str(pool))
        return purge_own(pool)

    monkeypatch.setattr(purge, "purge_own", asking)
    reports, (failed,) = here.purge()
    assert any(report.purged for report in reports)
    assert failed.pool == "volumes"
    assert "volumes" not in asked


def test_start_while_the_first_pool_is_full(ceph, host, pool):
    """Neither the first class ever is waited for, nor a further one."""
    slow = StorageClass("slow", "images", OPTIONS)
    first, second = host(FAST), host(FAST, slow)
    handle = first.cluster.connection().handle
    with ceph.admin() as admin, admin.open_ioctx("vms") as ioctx:
        with contextlib.suppress(rados.ObjectNotFound):
            ioctx.remove_object(registry.OBJECT)
        ioctx.write_full("an-object", b"")
        with over_its_quota(admin, "vms"):
            handle.wait_for_latest_osdmap()
            first.start()
            with pytest.raises(errors.NoSpace):
                first.add_pool(FAST)
        first.add_pool(FAST)
        ioctx.write_full("another-object", b"")
        with over_its_quota(admin, "vms"):
            handle.wait_for_latest_osdmap()
            second.start()
    assert registry.names(pool) == ("images", "snapshots")


def test_pool_of_a_former_class_that_fails_is_not_forgotten(
    host, instance, pool
):
    registry.add(pool, "volumes", "former")  # where Nova's user may do nothing
    here = host()
    here.read_pools()
    for _ in range(2):
        with pytest.raises(errors.NotPermitted):
            here.disks(instance)
    assert here.pool_names() == ("vms", "volumes")


def test_deleted_pool_of_a_former_class_is_forgotten(host, instance, pool):
    registry.add(pool, "gone", "former")
    here, there = host(), host()
    there.read_pools()
    assert there.pool_names() == ("vms", "gone")
    assert there.pool_of(f"{instance}_disk") is None
    assert there.disks(instance) == []
    assert there.pool_names() == ("vms",)
    here.start()
    assert registry.names(pool) == ()
