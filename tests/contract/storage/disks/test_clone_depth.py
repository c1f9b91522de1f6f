# SPDX-License-Identifier: Apache-2.0

"""How deep a chain of clones is, and what limits it."""

import uuid

import pytest

from nova_rbd_backend import names
from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.disks import provision
from nova_rbd_backend.storage.snapshots import detach
from nova_rbd_backend.storage.snapshots import make as snapshots

MIB = 1 << 20


@pytest.fixture
def chain(pool, parent):
    """Return a function that adds levels of a disk and its snapshot."""
    made = []

    def grow(levels, **kwargs):
        at = made[-1] if made else parent
        for _ in range(levels):
            disk = str(names.DiskName(str(uuid.uuid4()), "disk"))
            facts = provision.clone_disk(pool, disk, at, 8 * MIB, **kwargs)
            assert facts.created
            glance_id = str(uuid.uuid4())
            making = snapshots.begin(pool, pool, disk, glance_id)
            snapshots.snap(making)
            found = snapshots.publish(pool, making, {})
            journal.record_offer(
                pool, found.detachment, journal.Offer.ACCEPTED
            )
            at = names.SnapPath(pool.name, "", found.image, snapshots.SNAP)
            made.append(at)
        return disk, at.image

    return grow


def depth(pool, name):
    return pool.depth(pool.directory.image_id(name))


def test_depth(pool, chain):
    disk, snapshot = chain(1)
    assert (depth(pool, disk), depth(pool, snapshot)) == (1, 2)
    disk, snapshot = chain(2)
    assert (depth(pool, disk), depth(pool, snapshot)) == (5, 6)
    with pool.open(disk, read_only=False) as opened:
        opened.flatten()
    assert (depth(pool, disk), depth(pool, snapshot)) == (0, 1)


def test_depth_of_a_missing_image(pool):
    assert pool.depth("no-id") == 0


def test_disk_beyond_the_hard_limit_is_a_copy(pool, chain, parent):
    _, snapshot = chain(2)
    at = names.SnapPath(pool.name, "", snapshot, snapshots.SNAP)
    assert not provision.is_deep(pool, at, 5)
    assert provision.is_deep(pool, at, 4)  # a clone has 5 parents
    assert not provision.is_deep(pool, parent, 0)
    gone = names.SnapPath(
        pool.name, "", names.snapshot_image(str(uuid.uuid4())), snapshots.SNAP
    )
    assert not provision.is_deep(pool, gone, 0)
    disk, snapshot = chain(1, flatten=True)
    assert (depth(pool, disk), depth(pool, snapshot)) == (0, 1)
    with pool.open(disk) as opened:
        assert opened.read(4096, 4) == b"base"


def test_deep_snapshots_are_detached_first(pool, chain):
    chain(3)
    order = [
        depth(pool, entry.image)
        for entry in detach.waiting(pool, journal.detachments(pool), 3)
        if depth(pool, entry.image)
    ]
    assert order.index(4) < order.index(2)
    assert order.index(6) < order.index(2)
