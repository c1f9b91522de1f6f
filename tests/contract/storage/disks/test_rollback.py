# SPDX-License-Identifier: Apache-2.0

"""A disk is rolled back to its snap by copying changes, or by librbd."""

import random

import pytest

from nova_rbd_backend import errors
from nova_rbd_backend.storage.disks import delete, rollback
from tests.support.blank_disks import blank_disk

MIB = 1 << 20
SIZE = 160 * MIB
OBJECT = 4 * MIB
DATA = random.Random(5).randbytes(MIB)


@pytest.fixture
def disk(pool, instance):
    """A disk with data in 39 of its 40 objects, and a snap "s" of that."""
    name = f"{instance}_disk"
    blank_disk(pool, name, SIZE)
    with pool.open(name, read_only=False) as image:
        for start in range(0, SIZE - OBJECT, OBJECT):
            image.write(DATA, start + 1000)
        image.create_snap("s")
    yield name
    delete.delete_disks(pool, instance)


def content(pool, name, snap=None):
    with pool.open(name, snap=snap) as image:
        return image.size_bytes(), image.read(0, image.size_bytes())


def test_few_changes_are_copied_back(pool, disk):
    before = content(pool, disk, "s")
    with pool.open(disk, read_only=False) as image:
        image.resize(SIZE + 3 * OBJECT)
        image.write(b"new", 5000)
        image.write(b"in an empty object", SIZE - 100)
        image.zero(3 * OBJECT, OBJECT)
        image.write(b"beyond", SIZE + OBJECT)
    copied = rollback.roll_back(pool, disk, "s")
    # Only the blocks with data are copied, of the three changed objects.
    assert 0 < copied < 3 * MIB
    assert content(pool, disk) == before
    # As if the process had died before Nova removed the snap.
    assert rollback.roll_back(pool, disk, "s") is not None
    assert content(pool, disk) == before


def test_many_changes_are_left_to_librbd(pool, disk):
    before = content(pool, disk, "s")
    with pool.open(disk, read_only=False) as image:
        image.resize(SIZE + OBJECT)
        for start in range(0, SIZE, OBJECT):
            image.write(b"new", start)
    assert rollback.roll_back(pool, disk, "s") is None
    assert content(pool, disk) == before


def test_disk_that_was_shrunk_is_whole_again(pool, disk):
    before = content(pool, disk, "s")
    with pool.open(disk, read_only=False) as image:
        image.shrink(SIZE // 2)
    assert rollback.roll_back(pool, disk, "s") is None
    assert content(pool, disk) == before


def test_no_such_snap(pool, disk):
    with pytest.raises(errors.SnapNotFound):
        rollback.roll_back(pool, disk, "t")
