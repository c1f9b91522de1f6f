# SPDX-License-Identifier: Apache-2.0

"""What any open image must do."""

import pytest
import rbd

from nova_rbd_backend import errors
from nova_rbd_backend.ceph.image import Snap
from nova_rbd_backend.ceph.pool import Pool
from tests.support.clients import connect

MIB = 1 << 20


@pytest.fixture
def disk(pool, instance):
    pool.create(instance, 8 * MIB)
    with pool.open(instance, read_only=False) as disk:
        yield disk


def test_bytes(disk):
    disk.write(b"abc", 5 * MIB)
    disk.flush()
    assert disk.read(5 * MIB - 1, 5) == b"\0abc\0"
    assert disk.extents() == [(4 * MIB, 4 * MIB)]
    assert disk.layout().object_bytes == 4 * MIB
    disk.zero(4 * MIB, 4 * MIB)
    assert disk.read(5 * MIB, 3) == bytes(3)
    assert disk.extents() == []


def test_bytes_beyond_the_end(disk):
    disk.write(b"end", 8 * MIB - 3)
    with pytest.raises(errors.StorageFault):
        disk.write(b"END and more", 8 * MIB - 3)
    for at in (8 * MIB, 9 * MIB):
        with pytest.raises(errors.StorageFault):
            disk.write(b"x", at)
        with pytest.raises(errors.StorageFault):
            disk.zero(at, MIB)
    assert disk.size_bytes() == 8 * MIB
    # A range that begins inside the image is cut off at its end.
    disk.zero(8 * MIB - 2, MIB)
    assert disk.size_bytes() == 8 * MIB
    assert disk.read(8 * MIB - 3, MIB) == b"E\0\0"


def test_extents_after_zeros(pool, disk, instance):
    """An object counts as data until it is zeroed as a whole."""
    disk.write(bytes(MIB), 0)
    disk.write(b"x", 4 * MIB)
    disk.zero(4 * MIB, MIB)
    first, second = (0, 4 * MIB), (4 * MIB, 4 * MIB)
    assert disk.extents() == [first, second]
    disk.create_snap("s")
    disk.zero(*first)
    assert disk.extents() == [second]
    assert disk.changes("s") == [first]
    pool.clone(pool, instance, "s", f"{instance}c")
    with pool.open(f"{instance}c", read_only=False) as clone:
        assert clone.extents() == [first, second]
        # The clone has to hide the object of its parent by one of its own.
        clone.zero(*second)
        assert clone.extents() == [first, second]
        assert clone.read(*second) == bytes(4 * MIB)


def test_size(disk):
    disk.resize(9 * MIB)
    assert disk.size_bytes() == 9 * MIB
    with pytest.raises(errors.StorageFault, match="allow_shrink"):
        disk.resize(MIB)
    assert disk.size_bytes() == 9 * MIB


def test_snaps(pool, disk, instance):
    disk.write(b"old", 0)
    disk.create_snap("s")
    disk.create_snap("s")
    disk.write(b"new", 0)
    assert disk.snaps() == (Snap("s", 8 * MIB, True),)
    with pool.open(instance, snap="s") as shown:
        assert shown.read(0, 3) == b"old"
    disk.rollback("s")
    assert disk.read(0, 3) == b"old"
    disk.protect_snap("s")
    disk.protect_snap("s")
    disk.remove_snap("s")
    disk.remove_snap("s")
    assert disk.snaps() == ()
    for missing in (disk.rollback, disk.protect_snap):
        with pytest.raises(errors.SnapNotFound):
            missing("s")


def test_removed_snap_stays_for_its_clones(pool, disk, instance):
    for snap in ("cloned", "other"):
        disk.create_snap(snap)
    pool.clone(pool, instance, "cloned", f"{instance}c")
    disk.remove_snap("other")
    assert [snap.name for snap in disk.snaps()] == ["cloned"]
    disk.remove_snap("cloned")
    (hidden,) = disk.snaps()
    assert not hidden.user
    assert hidden.size_bytes == 8 * MIB
    assert hidden.name != "cloned"
    pool.remove(f"{instance}c")
    assert disk.snaps() == ()


def test_metadata(pool, disk):
    assert disk.metadata() == {}
    values = {f"key{n}": f"välue {n}" for n in range(20)}
    pool.set_metadata(disk.image_id, values)
    pool.set_metadata(disk.image_id, {"key1": "other"})
    assert disk.metadata() == values | {"key1": "other"}


def test_read_only(pool, disk, instance):
    with pool.open(instance) as shown:
        with pytest.raises(errors.ReadOnly):
            shown.write(b"x", 0)
        with pytest.raises(errors.ReadOnly):
            shown.create_snap("s")


def test_image_that_another_client_keeps_locked(ceph, pool, disk, instance):
    disk._image.lock_acquire(rbd.RBD_LOCK_MODE_EXCLUSIVE)
    other = Pool(connect(ceph, connect_timeout_seconds=11), str(pool))
    with (
        other.open(instance, read_only=False) as there,
        pytest.raises(errors.ReadOnly, match="rbd lock ls"),
    ):
        there.write(b"x", 0)


def test_clients(pool, disk, instance):
    assert [client.watches for client in disk.clients()] == [True]
    with pool.open(instance) as shown:
        assert shown.clients() == disk.clients()
