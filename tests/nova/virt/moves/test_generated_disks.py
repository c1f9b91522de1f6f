# SPDX-License-Identifier: Apache-2.0

"""Ephemeral and swap disks of a server booted from a volume, as it moves.

They are its only disks in Ceph, so no root disk tells a host with another pool
that it looks in the wrong place.
"""

import pytest

from nova_rbd_backend.storage import registry
from nova_rbd_backend.storage.disks import delete
from nova_rbd_backend.storage.images import purge
from tests.nova.images import MIB, VOLUME
from tests.nova.virt.moves.moved_server import moved_server

DISKS = {"disk.local": 1 << 30, "disk.swap": 4 * MIB}
# The block device mapping of disk.eph0.
EPHEMERAL = {
    "device_type": "disk",
    "disk_bus": "virtio",
    "device_name": "/dev/vdd",
    "guest_format": None,
    "size": 1,
}
# What Nova's manager gives to rebuild() beside what we use.
OF_REBUILD = (
    *("image_meta", "injected_files", "admin_password", "allocations"),
    *("bdms", "detach_block_devices", "attach_block_devices"),
)
NO_IMAGES = dict.fromkeys(("image_id", "kernel_id", "ramdisk_id"))


@pytest.fixture
def flavor():
    from nova import objects

    return objects.Flavor(
        name="some", root_gb=1, ephemeral_gb=1, swap=4, extra_specs={}
    )


@pytest.fixture
def moving(driver, vms, flavor):
    """A server that ran on another host."""
    made = moved_server(flavor)
    yield made
    for pool in ("vms", "snapshots"):
        there = vms.beside(pool)
        delete.delete_disks(there, made.uuid)
        purge.purge(there)


@pytest.fixture
def make(driver, monkeypatch):
    """Return a function that makes disks as Nova does, but formats none."""

    def formatted(target, *args, **kwargs):
        size = DISKS["disk.swap" if "swap_mb" in kwargs else "disk.local"]
        with open(target, "wb") as file:
            file.truncate(size)

    monkeypatch.setattr("nova.virt.configdrive.required_by", lambda _: True)
    for name in ("_create_ephemeral", "_create_swap"):
        monkeypatch.setattr(driver, name, formatted)

    def make(instance, disks=DISKS, resize=False):
        mapping = {
            disk: {"bus": "virtio", "dev": f"vd{letter}", "type": "disk"}
            for disk, letter in zip(disks, "bcd", strict=False)
        }
        driver._create_image(
            None,
            instance,
            mapping,
            disk_images=NO_IMAGES,
            block_device_info={
                **VOLUME,
                "ephemerals": [EPHEMERAL] if "disk.eph0" in disks else [],
            },
            ignore_bdi_for_swap=resize,
        )

    return make


@pytest.fixture
def evacuated(driver, make, monkeypatch):
    """Return a function that calls spawn(), which fails after making disks."""

    def spawn(self, context, instance, *args, **kwargs):
        make(instance)
        driver._cleanup_rbd(instance)
        raise RuntimeError("no port")

    monkeypatch.setattr("nova.virt.libvirt.driver.LibvirtDriver.spawn", spawn)
    return lambda instance: driver.spawn(
        None, instance, None, [], None, {}, [], VOLUME
    )


def lay(pool, instance, disks=DISKS):
    for disk in disks:
        pool.create(f"{instance.uuid}_{disk}", DISKS[disk])


def there(pool, instance):
    prefix = f"{instance.uuid}_"
    return sorted(
        name.removeprefix(prefix) for name in pool.directory.names(prefix)
    )


@pytest.fixture
def only_elsewhere(vms, new_compute):
    """A pool of disks that this host's nova-compute does not know of yet."""
    registry.add(vms, "snapshots", "fast")
    yield vms.beside("snapshots")
    registry.remove(vms, "snapshots")


def test_failed_evacuation_keeps_disks_in_a_new_pool(
    evacuated, moving, only_elsewhere
):
    lay(only_elsewhere, moving)
    with pytest.raises(RuntimeError, match="no port"):
        evacuated(moving)
    assert there(only_elsewhere, moving) == sorted(DISKS)


@pytest.mark.parametrize("missing", DISKS)
def test_evacuation_without_a_disk(evacuated, on_host, moving, vms, missing):
    from nova import exception

    lay(vms, moving, DISKS.keys() - {missing})
    with pytest.raises(exception.DiskNotFound) as refused:
        evacuated(moving)
    assert f"{moving.uuid}_{missing} in pool vms" in str(refused.value)
    assert there(vms, moving) == sorted(DISKS.keys() - {missing})


def test_evacuation_to_a_host_of_another_pool(evacuated, on_host, moving, vms):
    from nova import exception

    lay(vms, moving)
    on_host("destination", pool="snapshots")
    with pytest.raises(exception.DiskNotFound, match="doesn't share"):
        evacuated(moving)
    assert there(vms.beside("snapshots"), moving) == []


def test_evacuation_of_a_server_that_never_ran(make, moving, vms):
    """Its boot may have ended before the disks were made."""
    moving.vm_state, moving.launched_at = "error", None
    make(moving)
    assert there(vms, moving) == sorted(DISKS)


@pytest.fixture
def migrated(on_host, moving):
    """A server as Nova has it at the end of a resize or cold migration."""
    from nova import conf
    from nova.compute import task_states

    moving.host = conf.CONF.host
    moving.task_state = task_states.RESIZE_FINISH
    return moving


@pytest.mark.parametrize("missing", DISKS)
def test_migration_without_a_disk(make, migrated, vms, missing):
    from nova import exception

    lay(vms, migrated, DISKS.keys() - {missing})
    with pytest.raises(exception.DiskNotFound, match=missing):
        make(migrated, resize=True)
    assert there(vms, migrated) == sorted(DISKS.keys() - {missing})


def test_migration_without_a_disk_of_no_flavor(make, migrated, vms):
    """The user asked for the disk, so the flavors do not tell of it."""
    from nova import exception

    disks = {**DISKS, "disk.eph0": 1 << 30}
    lay(vms, migrated)
    with pytest.raises(exception.DiskNotFound, match=r"disk\.eph0"):
        make(migrated, disks, resize=True)
    assert there(vms, migrated) == sorted(DISKS)


def test_resize_makes_new_disks(make, migrated, vms):
    from nova import objects

    migrated.old_flavor = objects.Flavor(ephemeral_gb=0, swap=0)
    make(migrated, resize=True)
    assert there(vms, migrated) == sorted(DISKS)


def test_resize_to_more_swap(make, migrated, vms):
    from nova import objects

    migrated.old_flavor = objects.Flavor(ephemeral_gb=1, swap=1)
    vms.create(f"{migrated.uuid}_disk.local", DISKS["disk.local"])
    vms.create(f"{migrated.uuid}_disk.swap", MIB)
    make(migrated, resize=True)
    with vms.open(f"{migrated.uuid}_disk.swap") as disk:
        assert disk.size_bytes() == DISKS["disk.swap"]


def test_resize_to_another_cell_makes_all_disks(
    make, migrated, vms, cross_cell_context
):
    migrated.host = "source"
    migrated.migration_context = cross_cell_context
    make(migrated, resize=True)
    assert there(vms, migrated) == sorted(DISKS)


def test_unshelve_makes_all_disks(make, moving, vms):
    """Nova does not save these disks when it shelves a server."""
    from nova import conf

    moving.host, moving.vm_state = conf.CONF.host, "shelved_offloaded"
    make(moving)
    assert there(vms, moving) == sorted(DISKS)


@pytest.fixture
def small_swap(migrated, vms):
    """A disk that a resize is to replace by a bigger one."""
    from nova import objects

    migrated.old_flavor = objects.Flavor(ephemeral_gb=1, swap=1)
    vms.create(f"{migrated.uuid}_disk.local", DISKS["disk.local"])
    vms.create(f"{migrated.uuid}_disk.swap", MIB)
    return vms.directory.image_id(f"{migrated.uuid}_disk.swap")


def test_old_swap_stays_if_the_class_is_unknown(
    make, migrated, small_swap, vms, flavor
):
    from nova import exception

    flavor.extra_specs = {"nova_rbd:swap_class": "slow"}
    with pytest.raises(exception.InvalidInput, match="class 'slow'"):
        make(migrated, resize=True)
    name = f"{migrated.uuid}_disk.swap"
    assert vms.directory.image_id(name) == small_swap


def test_old_swap_stays_if_no_new_one_can_be_made(
    driver, make, migrated, small_swap, vms, monkeypatch
):
    def failing(*args, **kwargs):
        raise OSError("no space for the file system")

    migrated.flavor.swap = 5  # there is no base of this size yet
    monkeypatch.setattr(driver, "_create_swap", failing)
    with pytest.raises(OSError, match="no space"):
        make(migrated, resize=True)
    name = f"{migrated.uuid}_disk.swap"
    assert vms.directory.image_id(name) == small_swap


@pytest.fixture
def rebuild(driver):
    """Return a function that does as Nova's manager in a rebuild."""

    def rebuild(instance):
        try:
            driver.rebuild(
                context=None,
                instance=instance,
                evacuate=False,
                **dict.fromkeys(OF_REBUILD),
            )
        except NotImplementedError:
            driver._cleanup_rbd(instance)

    return rebuild


def test_rebuild_in_an_unknown_class_deletes_nothing(
    rebuild, moving, vms, flavor, caplog
):
    from nova import exception

    lay(vms, moving)
    flavor.extra_specs = {"nova_rbd:root_class": "slow"}
    with pytest.raises(exception.InstanceFaultRollback) as refused:
        rebuild(moving)
    assert "class 'slow'" in str(refused.value.inner_exception)
    assert f"heal_allocations --instance {moving.uuid}`" in caplog.text
    assert there(vms, moving) == sorted(DISKS)


def test_rebuild_deletes_the_disks(rebuild, moving, vms):
    lay(vms, moving)
    rebuild(moving)
    assert there(vms, moving) == []
