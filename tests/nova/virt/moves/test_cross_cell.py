# SPDX-License-Identifier: Apache-2.0

"""Disks that Nova makes from a temporary snapshot: unshelve, another cell.

The calls are those of Nova's compute manager (_unshelve_instance,
_finish_snapshot_based_resize_at_dest, and what confirms or reverts that
resize), on the same cluster. The source's pool is vms, that of the destination
is snapshots, and each host may know the pool of the other one.
"""

import uuid

import pytest

from nova_rbd_backend.storage import journal, registry
from nova_rbd_backend.storage.disks import delete
from nova_rbd_backend.storage.images import purge
from tests.nova.images import MIB
from tests.nova.virt.moves.moved_server import moved_server

SWAP_MB = 4


@pytest.fixture
def snapshot(ceph, monkeypatch):
    """Return a function that makes a temporary image with some content."""
    from nova_rbd_backend.ceph import cluster
    from nova_rbd_backend.ceph.pool import Pool
    from nova_rbd_backend.settings import ClusterSettings
    from nova_rbd_backend.virt.boot import create_image

    here = cluster.connect(ClusterSettings(str(ceph.conf), "glance", 5, 60))
    images = Pool(here, "images")

    class Glance:
        def get(self, context, image_id, **_):
            url = f"rbd://{here.fsid()}/images/{image_id}/snap"
            return {
                "id": image_id,
                "disk_format": "raw",
                "properties": {"image_type": "snapshot"},
                "locations": [{"url": url, "metadata": {}}],
            }

    def make(content):
        image_id = str(uuid.uuid4())
        images.create(image_id, MIB)
        with images.open(image_id, read_only=False) as image:
            image.write(content, 0)
            image.create_snap("snap")
            image.protect_snap("snap")
        return image_id

    monkeypatch.setattr(create_image, "IMAGE_API", Glance())
    return make


@pytest.fixture
def server(driver, vms, new_compute):
    """A server with root and swap disk; no host has made them yet."""
    from nova import objects

    flavor = objects.Flavor(
        root_gb=1, ephemeral_gb=0, swap=SWAP_MB, extra_specs={}
    )
    made = moved_server(
        flavor,
        image_ref=None,
        kernel_id=None,
        ramdisk_id=None,
        trusted_certs=None,
        system_metadata={},
    )
    yield made
    for name in registry.names(vms):
        registry.remove(vms, name)
    pools = [vms, vms.beside("snapshots")]
    for pool in pools:
        delete.delete_disks(pool, made.uuid)
        purge.purge(pool)
        for entry in journal.spawns(pool):
            if entry.image == made.uuid:
                journal.end(pool, entry)
    for name in registry.names(pools[1]):
        registry.remove(pools[1], name)


@pytest.fixture
def spawn(driver, monkeypatch):
    """Return a function that calls spawn(), which makes disks, no guest."""

    def formatted(target, *args, **kwargs):
        with open(target, "wb") as file:
            file.truncate(SWAP_MB * MIB)

    monkeypatch.setattr(driver, "_create_swap", formatted)
    monkeypatch.setattr("nova.virt.configdrive.required_by", lambda _: True)

    def make_disks(self, context, instance, *args, fails=False, **kwargs):
        mapping = {
            disk: {"bus": "virtio", "dev": dev, "type": "disk"}
            for disk, dev in (("disk", "vda"), ("disk.swap", "vdb"))
        }
        self._create_image(context, instance, mapping)
        if fails:
            raise RuntimeError("no port")

    monkeypatch.setattr(
        "nova.virt.libvirt.driver.LibvirtDriver.spawn", make_disks
    )

    def call(instance, image_id, **kwargs):
        instance.image_ref = image_id
        driver.spawn(None, instance, None, [], None, {}, [], **kwargs)

    return call


@pytest.fixture
def on_host(on_host, new_compute):
    """Become a host; pools that it has used are read at its start."""
    from nova_rbd_backend.virt import edge

    def become(name, pool="vms"):
        new_compute()
        on_host(name, pool)
        edge.store().start()

    return become


def there(pool, server):
    prefix = f"{server.uuid}_"
    return sorted(
        name.removeprefix(prefix) for name in pool.directory.names(prefix)
    )


def begins(pool, server, disk="disk"):
    with pool.open(f"{server.uuid}_{disk}") as image:
        return image.read(0, 8).rstrip(b"\0")


def lay(pool, server, content=b"current"):
    """Make disks as they are after an ordinary boot."""
    for disk in ("disk", "disk.swap"):
        pool.create(f"{server.uuid}_{disk}", MIB)
    with pool.open(f"{server.uuid}_disk", read_only=False) as image:
        image.write(content, 0)


# unshelve


@pytest.fixture
def shelved(server):
    from nova import conf

    server.vm_state, server.host = "shelved_offloaded", conf.CONF.host
    return server


def test_unshelve_never_boots_an_older_disk(spawn, shelved, snapshot, vms):
    from nova import exception

    spawn(shelved, snapshot(b"older"))
    current = snapshot(b"current")
    with pytest.raises(exception.StorageError) as refused:
        spawn(shelved, current)
    assert f"vms/{shelved.uuid}_disk" in str(refused.value)
    assert current in str(refused.value)
    assert begins(vms, shelved) == b"older"


def test_unshelve_never_boots_a_disk_of_unknown_origin(
    spawn, shelved, snapshot, vms
):
    from nova import exception

    vms.create(f"{shelved.uuid}_disk", MIB)
    with pytest.raises(exception.StorageError):
        spawn(shelved, snapshot(b"current"))
    assert there(vms, shelved) == ["disk"]


def test_unshelve_is_repeated(spawn, shelved, snapshot, vms):
    """nova-compute died after it had made the disk."""
    image_id = snapshot(b"current")
    spawn(shelved, image_id)
    delete.delete_disk(vms, f"{shelved.uuid}_disk.swap")
    with pytest.raises(RuntimeError, match="no port"):
        spawn(shelved, image_id, fails=True)
    assert there(vms, shelved) == ["disk"]
    spawn(shelved, image_id)
    assert begins(vms, shelved) == b"current"
    assert there(vms, shelved) == ["disk", "disk.swap"]


def test_failed_unshelve_leaves_nothing(spawn, shelved, snapshot, vms):
    """A later one, of a later snapshot, would find it."""
    with pytest.raises(RuntimeError, match="no port"):
        spawn(shelved, snapshot(b"current"), fails=True)
    assert there(vms, shelved) == []


# to another cell


@pytest.fixture
def moving(server, cross_cell_context):
    """The server, as a resize to another cell has it at its new host."""
    from nova.compute import task_states

    # Nova gives it to the new host without its context.
    server.obj_load_attr = lambda name: setattr(
        server, name, cross_cell_context
    )
    server.task_state = task_states.RESIZE_FINISH
    return server


@pytest.fixture
def there_pool(vms):
    return vms.beside("snapshots")


def know_each_other(vms, there_pool):
    """Have the hosts of both cells look into each other's pool, too."""
    registry.add(vms, "snapshots", "theirs")
    registry.add(there_pool, "vms", "theirs")


@pytest.fixture(params=[False, True], ids=["strangers", "pools known"])
def resized(request, spawn, on_host, moving, snapshot, vms, there_pool):
    """The server in VERIFY_RESIZE at its new host, in another cell."""
    from nova import conf

    lay(vms, moving)
    on_host("destination", "snapshots")
    spawn(moving, snapshot(b"current"))
    moving.host, moving.vm_state = conf.CONF.host, "resized"
    if request.param:
        know_each_other(vms, there_pool)
    on_host("destination", "snapshots")
    return moving


@pytest.fixture
def destroy(driver):
    """Return what deletes a server's disks in destroy() and cleanup()."""
    return driver._cleanup_rbd


def test_move_never_boots_the_disk_of_an_earlier_one(
    spawn, on_host, moving, snapshot, vms, there_pool
):
    from nova import exception

    lay(vms, moving)
    lay(there_pool, moving, b"older")
    on_host("destination", "snapshots")
    with pytest.raises(exception.StorageError) as refused:
        spawn(moving, snapshot(b"current"))
    assert f"snapshots/{moving.uuid}_disk" in str(refused.value)
    assert begins(there_pool, moving) == b"older"


@pytest.mark.parametrize("left", ["disk", "disk.swap"])
def test_move_to_a_host_with_the_same_pool(
    spawn, on_host, moving, snapshot, vms, left
):
    from nova import exception

    vms.create(f"{moving.uuid}_{left}", MIB)
    on_host("destination")
    with pytest.raises(exception.StorageError, match="other cell"):
        spawn(moving, snapshot(b"current"))
    assert there(vms, moving) == [left]
    with vms.open(f"{moving.uuid}_{left}") as image:
        assert image.snaps() == ()
        assert image.size_bytes() == MIB


def test_failed_move_leaves_nothing(
    spawn, on_host, moving, snapshot, vms, there_pool
):
    lay(vms, moving)
    on_host("destination", "snapshots")
    with pytest.raises(RuntimeError, match="no port"):
        spawn(moving, snapshot(b"current"), fails=True)
    assert there(there_pool, moving) == []
    assert begins(vms, moving) == b"current"


def test_revert_deletes_what_the_move_made(resized, destroy, vms, there_pool):
    from nova.compute import task_states

    resized.task_state = task_states.RESIZE_REVERTING
    destroy(resized)
    assert there(there_pool, resized) == []
    assert there(vms, resized) == ["disk", "disk.swap"]


def test_confirm_deletes_what_the_move_left(
    resized, destroy, on_host, vms, there_pool
):
    """The server is stopped, so that no guest holds its disks."""
    from nova.compute import task_states

    on_host("source")
    resized.task_state = task_states.RESIZE_MIGRATED
    destroy(resized)
    assert there(vms, resized) == []
    assert there(there_pool, resized) == ["disk", "disk.swap"]


def test_delete_after_a_move_deletes_all(resized, destroy, there_pool):
    resized.migration_context = None
    resized.task_state = "deleting"
    destroy(resized)
    assert there(there_pool, resized) == []


@pytest.fixture
def at_source(moving, on_host):
    """The server, as Nova gives it to its old host."""
    on_host("source")
    moving.obj_load_attr("migration_context")
    return moving


def test_confirm_keeps_a_disk_that_the_new_host_uses(at_source, destroy, vms):
    """A host with Nova's own backend takes over the disk in a shared pool."""
    from nova import exception
    from nova.compute import task_states

    lay(vms, at_source)
    with vms.open(f"{at_source.uuid}_disk", read_only=False) as image:
        image.create_snap("nova-resize")
    at_source.task_state = task_states.RESIZE_MIGRATED
    with pytest.raises(exception.StorageError, match="nova-resize"):
        destroy(at_source)
    assert there(vms, at_source) == ["disk", "disk.swap"]


@pytest.mark.parametrize("older_snap", [False, True])
def test_revert_leaves_the_disk_as_it_is(driver, at_source, vms, older_snap):
    """The move has changed nothing in it, and made no snap."""
    from nova.compute import task_states

    lay(vms, at_source, b"older")
    with vms.open(f"{at_source.uuid}_disk", read_only=False) as image:
        if older_snap:
            image.create_snap("nova-resize")
        image.write(b"current", 0)
    at_source.task_state = task_states.RESIZE_REVERTING
    root = driver.image_backend.by_name(at_source, "disk")
    root.rollback_to_snap("nova-resize")
    root.remove_snap("nova-resize")
    assert begins(vms, at_source) == b"current"
