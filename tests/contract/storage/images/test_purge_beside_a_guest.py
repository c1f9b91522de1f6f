# SPDX-License-Identifier: Apache-2.0

"""A purge frees a deleted snapshot whose disk a guest has open.

If the disk's snap was removed before, librbd opens the disk to remove the
hidden snap together with its last clone.
"""

import pytest

from nova_rbd_backend import names
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage.disks import delete
from nova_rbd_backend.storage.images import discard, purge, source_snap
from tests.support.blank_disks import blank_disk
from tests.support.clients import (
    connect,
    lock_of_a_dead_client,
    lock_of_a_hung_client,
)

MIB = 1 << 20
SECONDS = 2


@pytest.fixture
def hasty(ceph):
    """The pool of the disks, over connections that no other test uses."""
    return Pool(connect(ceph, operation_timeout_seconds=SECONDS), "vms")


@pytest.fixture
def snapshot(hasty, instance, name):
    """The name and the id of a deleted snapshot, the last of its snap."""
    hasty.create(name, MIB)
    source = source_snap.new(hasty, hasty.directory.image_id(name))
    source_snap.make(hasty, source)
    snapshot = names.snapshot_image(instance)
    hasty.clone(hasty, name, source.snap, snapshot)
    image_id = hasty.directory.image_id(snapshot)
    discard.discard(hasty, snapshot)
    source_snap.remove(hasty, source)
    assert len(_snaps(hasty, name)) == 1
    yield snapshot, image_id
    delete.delete_disks(hasty, instance)
    purge.purge(hasty)


def _snaps(pool, name):
    with pool.open(name) as disk:
        return disk.snaps()


def test_guest_that_hangs(ceph, hasty, instance, name, snapshot):
    """The purge leaves the snapshot, and frees the other images."""
    other = f"{instance}_disk.swap"
    disk_id = hasty.directory.image_id(name)
    kept_connection = hasty.cluster.connection()
    with lock_of_a_hung_client(ceph, disk_id, answers=True) as (client, end):
        blank_disk(hasty, other, MIB)
        discard.discard(hasty, other)
        report = purge.purge(hasty)
        assert other in report.purged
        (kept,) = [each for each in report.stuck if each.image == snapshot[0]]
        assert f"client.{client} has its or its parent's" in kept.reason
        # Other work goes on over the connection.
        assert hasty.cluster.connection() is kept_connection
        end()
        assert purge.purge_one(hasty, *snapshot) is None
    assert _snaps(hasty, name) == ()


def test_guest_that_died(ceph, hasty, name, snapshot):
    with lock_of_a_dead_client(ceph, hasty.directory.image_id(name)):
        assert purge.purge_one(hasty, *snapshot) is None
        assert _snaps(hasty, name) == ()
