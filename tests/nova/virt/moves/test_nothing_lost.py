# SPDX-License-Identifier: Apache-2.0

"""A disk that a host cannot find is not made a second time.

And a disk is not lost when a start, a rescue or a resize fails.
"""

import types
import uuid

import pytest

from nova_rbd_backend.storage.disks import delete
from nova_rbd_backend.storage.images import purge
from tests.nova.images import MIB, VOLUME


def resized_here(driver, instance, monkeypatch, cross_cell=False):
    """Finish a resize here; return the root disks that Nova would make."""
    from nova import objects
    from nova.compute import task_states

    instance.task_state = task_states.RESIZE_FINISH
    instance.flavor = objects.Flavor(root_gb=1, extra_specs={})
    instance.migration_context = types.SimpleNamespace(
        is_cross_cell_move=lambda: cross_cell
    )
    made = []
    monkeypatch.setattr(
        driver,
        "_try_fetch_image_cache",
        lambda image, *args: made.append(image.disk.image),
    )
    monkeypatch.setattr("nova.virt.configdrive.required_by", lambda _: True)
    mapping = {"disk": {"bus": "virtio", "dev": "vda", "type": "disk"}}
    images = {"image_id": instance.image_ref}
    driver._create_and_inject_local_root(
        None, instance, mapping, False, "", images, None, "source"
    )
    return made


@pytest.fixture
def moving(instance, vms):
    """An instance as Nova has it in a move."""
    fields = ("uuid", "image_ref", "flavor", "system_metadata")
    found = {name: getattr(instance, name) for name in fields}
    yield types.SimpleNamespace(
        **found,
        project_id="p" * 32,
        vm_state="active",
        task_state=None,
        host="source",
    )
    delete.delete_disks(vms, instance.uuid)
    purge.purge(vms)


def test_resize_to_a_host_of_another_pool(
    driver, on_host, moving, vms, monkeypatch
):
    from nova import exception

    on_host("destination", pool="snapshots")
    with pytest.raises(exception.DiskNotFound) as refused:
        resized_here(driver, moving, monkeypatch)
    assert f"{moving.uuid}_disk in pool snapshots" in str(refused.value)
    assert "libvirt_images_store" in str(refused.value)
    assert vms.directory.exists(f"{moving.uuid}_disk")


def test_resize_to_another_cell_makes_the_disk(
    driver, on_host, moving, monkeypatch
):
    on_host("destination", pool="snapshots")
    made = resized_here(driver, moving, monkeypatch, cross_cell=True)
    assert made == [f"{moving.uuid}_disk"]


def test_resize_on_shared_storage_keeps_a_snap(
    driver, moving, vms, monkeypatch
):
    resized_here(driver, moving, monkeypatch)
    with vms.open(f"{moving.uuid}_disk") as disk:
        assert [snap.name for snap in disk.snaps()] == ["nova-resize"]


def test_no_rollback_to_the_snap_of_an_earlier_resize(driver, moving, vms):
    from nova.compute import task_states

    name = f"{moving.uuid}_disk"
    root = driver.image_backend.by_name(moving, "disk")
    root.create_snap("nova-resize")
    with vms.open(name, read_only=False) as disk:
        disk.write(b"written since", 0)
    # nova-compute was killed while it shut the guest down.
    moving.task_state = task_states.RESIZE_MIGRATING
    root.rollback_to_snap("nova-resize")
    root.remove_snap("nova-resize")
    # The snap need not exist.
    root.rollback_to_snap("nova-resize")
    with vms.open(name) as disk:
        assert disk.read(0, 13) == b"written since"


class Start:
    """Nova's spawn(), which fails after it has made a missing disk."""

    def __init__(self, driver, pool, monkeypatch):
        self.made = None
        self._driver = driver
        self._pool = pool
        monkeypatch.setattr(
            "nova.virt.libvirt.driver.LibvirtDriver.spawn", self._spawn
        )

    def _spawn(self, context, instance, *args, **kwargs):
        self.made = f"{instance.uuid}_disk.local"
        self._pool.create(self.made, MIB)
        self._driver._cleanup_rbd(instance)
        raise RuntimeError("no port")

    def of(self, instance, block_device_info=None):
        self._driver.spawn(
            None, instance, None, [], None, {}, [], block_device_info
        )


@pytest.fixture
def start(driver, vms, monkeypatch):
    return Start(driver, vms, monkeypatch)


def test_failed_evacuation_keeps_the_disks(start, moving, vms):
    with pytest.raises(RuntimeError, match="no port"):
        start.of(moving)
    assert vms.directory.names(moving.uuid) == [f"{moving.uuid}_disk"]


def test_failed_boot_deletes_the_disks(start, moving, vms):
    from nova import conf

    moving.host = conf.CONF.host
    with pytest.raises(RuntimeError, match="no port"):
        start.of(moving)
    assert vms.directory.names(moving.uuid) == []


def test_evacuation_without_the_root_disk(start, on_host, moving, vms):
    from nova import exception

    on_host("destination", pool="snapshots")
    with pytest.raises(exception.DiskNotFound, match="doesn't share"):
        start.of(moving)
    assert start.made is None


def test_evacuation_of_a_server_booted_from_a_volume(start, moving):
    moving.uuid = str(uuid.uuid4())
    with pytest.raises(RuntimeError, match="no port"):
        start.of(moving, VOLUME)


def test_rescue_deletes_old_rescue_disks_first(
    driver, moving, vms, monkeypatch
):
    for left in ("disk.rescue", "disk.config.rescue"):
        vms.create(f"{moving.uuid}_{left}", MIB)
    found = []
    monkeypatch.setattr(
        "nova.virt.libvirt.driver.LibvirtDriver.rescue",
        lambda *args: found.extend(vms.directory.names(moving.uuid)),
    )
    driver.rescue(None, moving, [], None, "password", None, [])
    assert found == [f"{moving.uuid}_disk"]
