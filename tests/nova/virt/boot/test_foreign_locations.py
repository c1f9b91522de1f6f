# SPDX-License-Identifier: Apache-2.0

"""An image whose location is somebody's disk, base or snapshot."""

import uuid

import pytest

from tests.nova.images import GIB, MIB, cache, content, never, rbd


@pytest.fixture
def made(pools):
    """Return a function that makes an image with a snap; its location."""
    names = []

    def make(name, snap):
        pools.vms.create(name, MIB)
        names.append(name)
        with pools.vms.open(name, read_only=False) as disk:
            disk.write(b"secret", 0)
            disk.create_snap(snap)
        return f"rbd://{pools.vms.cluster.fsid()}/vms/{name}/{snap}"

    yield make
    from nova_rbd_backend.storage.images import discard

    for name in names:
        discard.discard(pools.vms, name)


FOREIGN = [
    ("{}_disk", "nova-resize", "instance's disk"),
    ("{}_disk.eph0", "nova-resize", "instance's disk"),
    ("{}_disk.config", "nova-resize", "instance's disk"),
    ("nova-base_{}_0123456789ab", "base", "a base"),
    ("snapshot_{}", "snap", "the snapshot of image"),
    ("snapshot_{}.nova-rbd-draft-0123456789ab", "snap", "the snapshot of"),
]


# Images of other formats are not cloned but fetched from there.
@pytest.mark.parametrize("disk_format", ["raw", "qcow2"])
@pytest.mark.parametrize(("name", "snap", "what"), FOREIGN)
def test_what_is_foreign_is_neither_cloned_nor_fetched(
    pools, glance, instance, made, name, snap, what, disk_format
):
    from nova import exception

    url = made(name.format(uuid.uuid4()), snap)
    glance(disk_format=disk_format, urls=("file:///own", url))
    image = rbd(instance)
    with pytest.raises(exception.StorageError, match=what):
        cache(image, never)
    assert not image.exists()


@pytest.mark.parametrize(("name", "snap", "what"), FOREIGN[:4])
def test_what_is_foreign_is_not_exported_for_a_download(
    pools, made, tmp_path, name, snap, what
):
    from nova import exception

    from nova_rbd_backend.virt import rbd_utils

    name, target = name.format(uuid.uuid4()), tmp_path / "image"
    made(name, snap)
    with pytest.raises(exception.StorageError, match=what):
        rbd_utils.RBDDriver().export_image(str(target), name, snap, "vms")
    assert not target.exists()


def test_foreign_image_is_not_precached(
    pools, glance, made, image_id, monkeypatch
):
    from nova import exception

    from nova_rbd_backend.virt.boot import create_image, precache

    glance(urls=(made(f"snapshot_{uuid.uuid4()}", "snap"),))
    monkeypatch.setattr(precache, "IMAGE_API", create_image.IMAGE_API)
    with pytest.raises(exception.StorageError, match="the snapshot of image"):
        precache.have(None, image_id)


@pytest.mark.parametrize("name", ["snapshot_{}", "{}"])
def test_snapshots_are_cloned(pools, glance, instance, made, name, image_id):
    """Snapshots with this backend's name, and with the in-tree backend's."""
    glance(urls=(made(name.format(image_id), "snap"),))
    image = rbd(instance)
    cache(image, never, image_id=image_id)
    assert content(pools, image, 6)[:2] == (b"secret", GIB)
    from nova_rbd_backend.storage.disks import delete

    delete.delete_disks(pools.vms, instance.uuid)
