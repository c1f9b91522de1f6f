# SPDX-License-Identifier: Apache-2.0

"""What Nova's unit tests assert by mocking rbd, shown on a real Ceph.

in_tree/not_applicable.toml says which of Nova's tests each of these stands
for.
"""

import types
import uuid

import pytest

from tests.nova.images import GIB, MIB, cache, content, never, rbd


def nova_instance(task_state=None):
    return types.SimpleNamespace(
        uuid=str(uuid.uuid4()), project_id="p" * 32, task_state=task_state
    )


def make(pools, of, *disks):
    for disk in disks:
        pools.vms.create(f"{of.uuid}_{disk}", MIB)


def left(pools, of):
    return sorted(
        n.partition("_")[2] for n in pools.vms.directory.names(of.uuid)
    )


def rbd_driver():
    from nova_rbd_backend.virt import rbd_utils

    return rbd_utils.RBDDriver()


# -- deleting disks


@pytest.mark.quick
def test_cleanup_takes_the_instances_disks_and_no_others(pools, driver):
    mine, other = nova_instance(), nova_instance()
    for one in (mine, other):
        make(pools, one, "disk", "disk.swap")
    driver._cleanup_rbd(mine)
    assert left(pools, mine) == []
    assert left(pools, other) == ["disk", "disk.swap"]


def test_cleanup_of_a_reverted_resize_keeps_the_disk(pools, driver):
    from nova.compute import task_states

    mine = nova_instance(task_states.RESIZE_REVERTING)
    make(pools, mine, "disk", "disk.local")
    driver._cleanup_rbd(mine)
    assert left(pools, mine) == ["disk"]


def test_cleanup_takes_a_disk_with_the_snap_of_a_resize(pools, driver):
    mine = nova_instance()
    make(pools, mine, "disk")
    rbd(mine).create_snap("nova-resize")
    driver._cleanup_rbd(mine)
    assert left(pools, mine) == []


def test_unrescue_takes_the_rescue_disks(pools):
    mine = nova_instance()
    make(pools, mine, "disk", "disk.rescue", "disk.config.rescue")
    other = nova_instance()
    make(pools, other, "disk.rescue")
    from nova_rbd_backend.virt import rbd_utils

    with rbd_utils.cleanup_scope(mine.uuid):
        rbd_driver().cleanup_volumes(
            lambda disk: (
                disk.startswith(mine.uuid) and disk.endswith(".rescue")
            )
        )
    assert left(pools, mine) == ["disk"]
    assert left(pools, other) == ["disk.rescue"]


def test_whole_pool_is_never_read_for_a_cleanup(pools):
    with pytest.raises(NotImplementedError):
        rbd_driver().cleanup_volumes(lambda disk: True)


def test_remove_image(pools):
    mine = nova_instance()
    make(pools, mine, "disk.config.rescue")
    for _ in range(2):
        rescue = rbd(mine, "disk.config.rescue").disk
        rescue.delete(rescue.place)
    assert left(pools, mine) == []


# -- images


def test_flatten(pools, glance, instance, parent):
    glance(urls=(parent,))
    image = rbd(instance)
    cache(image, never)
    for _ in range(2):
        image.flatten()
        assert content(pools, image, 11) == (b"from glance", GIB, None)


def test_glances_image_is_exported(pools, parent, tmp_path):
    """As Nova asks with [glance] enable_rbd_download."""
    name, target = parent.split("/")[-2], tmp_path / "image"
    rbd_driver().export_image(str(target), name, "snap", "images")
    assert target.read_bytes()[:11] == b"from glance"
    assert target.stat().st_size == 8 * MIB


def test_export_is_from_the_disks_pool_by_default(pools, tmp_path):
    mine, target = nova_instance(), tmp_path / "disk"
    make(pools, mine, "disk")
    rbd(mine).create_snap("snap")
    rbd_driver().export_image(str(target), f"{mine.uuid}_disk", "snap")
    assert target.stat().st_size == MIB


# -- snapshots: what Glance answers


class TakingGlance:
    """Takes what it is given, but raises ``refuses`` the first time.

    The images have the size of the disks.
    """

    def __init__(self, refuses=None):
        self.refuses, self.given, self.data = refuses, {}, None

    def update(self, context, image_id, metadata, data=None, **_):
        refuses, self.refuses = self.refuses, None
        if refuses is not None:
            raise refuses
        self.given |= metadata
        if data:
            self.data = data.read(16)
            size = len(self.data) + sum(map(len, iter(data.read, b"")))
            return {"size": size}
        return None

    def get(self, context, image_id, **_):
        status = "active" if "location" in self.given else "queued"
        return {"status": status, "properties": {}, "size": MIB}


@pytest.fixture
def snapshot(pools, monkeypatch):
    """Return a function to make a snapshot of a disk with "content"."""
    from nova import objects

    from nova_rbd_backend.virt import edge
    from nova_rbd_backend.virt.background import worker
    from nova_rbd_backend.virt.snapshot import glance as glance_

    # No background work; make_one purges instead.
    monkeypatch.setattr(worker.Background, "start", lambda self: None)
    objects.register_all()

    def make_one(glance_api):
        monkeypatch.setattr(glance_, "IMAGE_API", glance_api)
        mine = nova_instance()
        mine.image_ref = str(uuid.uuid4())
        mine.image_meta = objects.ImageMeta()
        make(pools, mine, "disk")
        with pools.vms.open(f"{mine.uuid}_disk", read_only=False) as disk:
            disk.write(b"content", 0)
        image_id = str(uuid.uuid4())
        try:
            return rbd(mine).direct_snapshot(
                None, str(uuid.uuid4()), "raw", image_id, None
            )
        finally:
            edge.store().purge()
            with pools.vms.open(f"{mine.uuid}_disk") as disk:
                make_one.snaps = disk.snaps()
            make_one.images = pools.vms.directory.names(f"snapshot_{image_id}")

    return make_one


@pytest.mark.quick
def test_snapshots_location_is_given_to_glance(pools, snapshot):
    found = TakingGlance()
    assert snapshot(found) == ""  # Nova has nothing left to send
    fsid, pool = found.given["location"].split("/")[2:4]
    assert (fsid, pool) == (pools.vms.cluster.fsid(), "vms")
    assert found.given["disk_format"] == "raw"
    assert len(snapshot.images) == 1


def test_snapshot_whose_image_is_deleted_leaves_nothing(snapshot):
    from nova import exception

    with pytest.raises(exception.ImageNotFound):
        snapshot(TakingGlance(exception.ImageNotFound(image_id="x")))
    assert (snapshot.snaps, snapshot.images) == ((), [])


def test_snapshot_that_glance_refuses_is_uploaded(snapshot):
    from nova import exception

    found = TakingGlance(exception.Forbidden("no locations"))
    assert snapshot(found) == ""
    assert found.data.startswith(b"content")
    assert "location" not in found.given
    assert (snapshot.snaps, snapshot.images) == ((), [])


# -- missing disks, snaps and pools; capacity


def test_no_such_snap_to_go_back_to(pools):
    from nova import exception

    mine = nova_instance()
    make(pools, mine, "disk")
    with pytest.raises(exception.SnapshotNotFound):
        rbd(mine).rollback_to_snap("nova-resize")


def test_no_such_disk(pools):
    from nova import exception

    mine = nova_instance()
    assert not rbd(mine).exists()
    with pytest.raises(exception.DiskNotFound):
        rbd(mine).get_disk_size("")


def test_capacity_is_in_gib_and_of_the_pool(pools, driver):
    from nova import exception

    found = driver._get_local_gb_info()
    assert set(found) == {"total", "free", "used"}
    assert 0 < found["free"] <= found["total"] < 1024
    pools.conf(group="libvirt", images_rbd_pool="nowhere")
    with pytest.raises(exception.StorageError, match="nowhere"):
        driver._get_local_gb_info()


def test_nothing_of_the_pool_is_reserved_for_the_image_cache(pools, driver):
    pools.conf(group="workarounds", reserve_disk_resource_for_image_cache=True)
    assert driver._get_disk_size_reserved_for_image_cache() == 0


# -- signatures


def test_parameters_are_novas():
    """Ours may add only parameters that have a default."""
    import inspect

    from nova.virt.libvirt import imagebackend as nova_imagebackend

    from nova_rbd_backend.virt import compat, imagebackend

    for name in compat.SEAMS["nova.virt.libvirt.imagebackend", "Image"]:
        if name == "__init__":  # Nova makes images only through Backend
            continue
        nova = inspect.signature(getattr(nova_imagebackend.Image, name))
        ours = inspect.signature(getattr(imagebackend.Rbd, name))
        asked = [p for p in nova.parameters if p != "safe"]
        given = [p for p in ours.parameters if p != "safe"]
        assert given[: len(asked)] == asked, name
        for more in given[len(asked) :]:
            assert ours.parameters[more].default is not inspect.Signature.empty


def test_driver_takes_what_nova_gives():
    import inspect

    from nova.virt.libvirt import driver as nova_driver

    from nova_rbd_backend.virt import driver as our_driver

    nova, ours = nova_driver.LibvirtDriver, our_driver.LibvirtDriver
    overridden = [
        name for name in vars(ours) if callable(vars(nova).get(name))
    ]
    assert "spawn" in overridden
    for name in overridden:
        asked = inspect.signature(getattr(nova, name)).parameters
        taken = inspect.signature(getattr(ours, name))
        taken.bind(**dict.fromkeys(asked))
