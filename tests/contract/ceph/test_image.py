# SPDX-License-Identifier: Apache-2.0

"""What any open image must do."""

import pytest

from nova_rbd_backend import errors
from nova_rbd_backend.ceph.image import Snap

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


def test_size(disk):
    disk.resize(9 * MIB)
    assert disk.size_bytes() == 9 * MIB
    with pytest.raises(errors.StorageError):
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


def test_metadata(pool, disk):
    assert disk.metadata() == {}
    values = {f"key{n}": f"välue {n}" for n in range(20)}
    pool.headers.set_metadata(disk.image_id, values)
    pool.headers.set_metadata(disk.image_id, {"key1": "other"})
    assert disk.metadata() == values | {"key1": "other"}


def test_read_only(pool, disk, instance):
    with pool.open(instance) as shown:
        with pytest.raises(errors.NotPermitted):
            shown.write(b"x", 0)
        with pytest.raises(errors.NotPermitted):
            shown.create_snap("s")


def test_clients(pool, disk, instance):
    assert [client.watches for client in disk.clients()] == [True]
    with pool.open(instance) as shown:
        assert shown.clients() == disk.clients()
