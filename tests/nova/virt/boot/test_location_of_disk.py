# SPDX-License-Identifier: Apache-2.0

"""An image whose location is the disk of somebody's instance."""

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


@pytest.mark.parametrize("disk", ["disk", "disk.eph0", "disk.config"])
def test_disk_is_neither_cloned_nor_fetched(
    pools,
    glance,
    instance,
    made,
    disk,
):
    from nova import exception

    glance(urls=(made(f"{uuid.uuid4()}_{disk}", "nova-resize"),))
    image = rbd(instance)
    with pytest.raises(exception.StorageError, match="instance's disk"):
        cache(image, never)
    assert not image.exists()


def test_disk_is_not_exported_for_a_download(pools, made, tmp_path):
    from nova import exception

    from nova_rbd_backend.virt import rbd_utils

    name, target = f"{uuid.uuid4()}_disk", tmp_path / "image"
    made(name, "nova-resize")
    with pytest.raises(exception.StorageError, match="instance's disk"):
        rbd_utils.RBDDriver().export_image(
            str(target), name, "nova-resize", "vms"
        )
    assert not target.exists()


@pytest.mark.parametrize("name", ["snapshot_{}", "{}"])
def test_snapshots_are_cloned(pools, glance, instance, made, name):
    """Snapshots with this backend's name, and with the in-tree backend's."""
    glance(urls=(made(name.format(uuid.uuid4()), "snap"),))
    image = rbd(instance)
    cache(image, never)
    assert content(pools, image, 6)[:2] == (b"secret", GIB)
    from nova_rbd_backend.storage.disks import delete

    delete.delete_disks(pools.vms, instance.uuid)
