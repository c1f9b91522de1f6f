# SPDX-License-Identifier: Apache-2.0

"""A guest moves live only between hosts that see the same disks.

The hosts have a configuration each: with the same or another pool of a real
Ceph, or with another cluster.
"""

import os
import types
import uuid

import pytest

from tests.nova.images import MIB
from tests.support.clusters import started_ceph


@pytest.fixture(scope="module")
def other_ceph():
    with started_ceph(osds=1) as ceph:
        yield ceph


def told(filename):
    """Return what a destination tells the source, as Nova's object."""
    from nova import objects

    return objects.LibvirtLiveMigrateData(
        filename=filename, image_type="rbd", is_volume_backed=False
    )


def check_source(driver, instance, filename):
    return driver.check_can_live_migrate_source(None, instance, told(filename))


def test_same_pool(driver, on_host, instance):
    folder = on_host("destination")
    filename = driver._create_shared_storage_test_file(instance)
    assert os.listdir(folder) == [filename]
    on_host("source")
    found = check_source(driver, instance, filename)
    assert found.is_shared_block_storage
    assert not found.is_shared_instance_path
    assert not found.block_migration
    on_host("destination")
    driver._cleanup_shared_storage_test_file(filename)
    assert os.listdir(folder) == []


def test_shared_instances_path_is_still_seen(driver, on_host, instance):
    on_host("source")
    filename = driver._create_shared_storage_test_file(instance)
    found = check_source(driver, instance, filename)
    assert found.is_shared_instance_path


@pytest.fixture(params=["pool", "cluster"])
def elsewhere(request, on_host, other_ceph):
    """Return a function to become a host with another pool or cluster."""
    if request.param == "pool":
        return lambda: on_host("destination", pool="images")
    return lambda: on_host("destination", of=other_ceph)


def test_source_refuses(driver, on_host, instance, elsewhere, ceph):
    from nova import exception

    elsewhere()
    filename = driver._create_shared_storage_test_file(instance)
    on_host("source")
    with pytest.raises(exception.MigrationPreCheckError) as caught:
        check_source(driver, instance, filename)
    assert f"pool vms of Ceph cluster {ceph.fsid}" in str(caught.value)
    assert "libvirt_images_store" in str(caught.value)


def test_source_accepts_a_guest_without_disks_in_ceph(
    driver, on_host, instance, elsewhere
):
    """All disks of the guest are volumes."""
    instance.uuid = str(uuid.uuid4())
    elsewhere()
    filename = driver._create_shared_storage_test_file(instance)
    on_host("source")
    assert check_source(driver, instance, filename).is_shared_block_storage


def test_source_accepts_an_in_tree_destination(driver, on_host, instance):
    on_host("source")
    assert check_source(driver, instance, "tmpab_cd12").is_shared_block_storage


@pytest.fixture
def root_bdm(monkeypatch):
    """The block device mapping of the root disk in Nova's database."""
    from nova.compute import utils

    found = types.SimpleNamespace(is_volume=False)
    monkeypatch.setattr(utils, "get_root_bdm", lambda *_args: found)
    return found


def check_destination(instance):
    from nova_rbd_backend.virt.moves import live_migration

    live_migration.check_destination(None, instance)


def test_destination_refuses(
    driver, on_host, instance, elsewhere, root_bdm, tmp_path
):
    from nova import exception

    elsewhere()
    with pytest.raises(exception.MigrationPreCheckError) as caught:
        driver.check_can_live_migrate_destination(
            None, instance, {}, {}, None, None
        )
    assert f"{instance.uuid}_disk is not in pool" in str(caught.value)
    assert os.listdir(tmp_path / "destination") == []


def test_destination_accepts(on_host, instance, elsewhere, root_bdm):
    on_host("destination")
    check_destination(instance)
    elsewhere()
    root_bdm.is_volume = True
    check_destination(instance)


@pytest.fixture
def in_class(vms, instance, new_compute):
    """Put the guest's root disk into a pool of a class of the source."""
    from nova_rbd_backend.storage import registry

    name = f"{instance.uuid}_disk"
    vms.remove(name)
    other = vms.beside("snapshots")
    other.create(name, MIB)
    registry.add(vms, "snapshots", "fast")
    yield
    registry.remove(vms, "snapshots")
    other.remove(name)


def test_destination_learns_of_the_sources_classes(
    on_host, instance, in_class, root_bdm
):
    on_host("destination")
    check_destination(instance)


def test_destination_refuses_if_it_may_not_read_a_pool(
    on_host, instance, in_class, root_bdm, vms
):
    from nova import exception

    from nova_rbd_backend.storage import registry

    on_host("destination")
    registry.add(vms, "volumes", "other")
    try:
        with pytest.raises(exception.StorageError, match="volumes"):
            check_destination(instance)
    finally:
        registry.remove(vms, "volumes")


def test_refusal_of_the_source_names_the_pools_of_the_disks(
    driver, on_host, instance, in_class, elsewhere
):
    from nova import exception

    from nova_rbd_backend.virt import edge

    elsewhere()
    filename = driver._create_shared_storage_test_file(instance)
    on_host("source")
    edge.store().read_pools()
    with pytest.raises(exception.MigrationPreCheckError) as caught:
        check_source(driver, instance, filename)
    assert "its disks are in pool snapshots of" in str(caught.value)
    assert "libvirt_images_store is pool vms" in str(caught.value)


@pytest.mark.parametrize(
    ("pool", "shown"),
    [
        ("a,b/c", "a,b/c"),
        ("p" * 200, f"{'p' * 40}..."),
        # This character has three bytes in UTF-8.
        ("\u6570" * 100, "\u6570" * 13 + "..."),
    ],
    ids=["short", "long", "UTF-8"],
)
def test_refusal_names_the_pool_of_the_destination(
    driver, on_host, instance, pool, shown
):
    from nova import exception

    on_host("destination", pool=pool)
    filename = driver._create_shared_storage_test_file(instance)
    check_source(driver, instance, filename)
    on_host("source")
    with pytest.raises(exception.MigrationPreCheckError) as caught:
        check_source(driver, instance, filename)
    assert f"that of the destination is pool {shown} of" in str(caught.value)


def test_long_pool_names_that_begin_alike_differ(driver, on_host, instance):
    told = set()
    for last in "qr":
        on_host("destination", pool="p" * 200 + last)
        filename = driver._create_shared_storage_test_file(instance)
        told.add(filename.rpartition(",")[0])
    assert len(told) == 2
