# SPDX-License-Identifier: Apache-2.0

"""A process may die at any step of making or detaching a snapshot.

The next periodic run on any host removes a snapshot that Glance was not told
of, and finishes the detachment of a snapshot that Glance has.
"""

import random
import uuid

import pytest

from nova_rbd_backend import names
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.disks import delete
from nova_rbd_backend.storage.images import discard, purge
from nova_rbd_backend.storage.snapshots import detach
from tests.support import storage_child
from tests.support.blank_disks import blank_disk
from tests.support.clients import connect
from tests.support.clusters import wait_for_dead_clients

MIB = 1 << 20
CONTENT = random.Random(4).randbytes(5 * MIB)


@pytest.fixture(scope="module")
def here(ceph):
    return connect(ceph)


@pytest.fixture
def new_disk(ceph, here):
    """Return a function that makes a disk.

    After the test the disks must exist without snaps; they are deleted.
    """
    vms = Pool(here, "vms")
    made = []

    def make():
        name = str(names.DiskName(str(uuid.uuid4()), "disk"))
        blank_disk(vms, name, 8 * MIB)
        with vms.open(name, read_only=False) as image:
            image.write(CONTENT, 0)
        made.append(name)
        return name, "snapshots"

    yield make
    for name in made:
        with vms.open(name) as image:
            assert image.snaps() == ()
        delete.delete_disk(vms, name)
    wait_for_dead_clients(ceph, "vms")
    purge.purge(vms)
    assert {each.name for each in vms.trash.entries()}.isdisjoint(made)


def _run_once(target):
    """Do what nova-compute does in its periodic run."""
    asked = []
    for entry in detach.abandoned(target, journal.detachments(target)):
        if detach.may_be_known(target, entry):
            asked.append(entry)
        else:
            assert detach.remove_unknown(target, entry)
    done = [
        detach.detach(target, entry, 0)
        for entry in detach.waiting(
            target, journal.detachments(target), held_seconds=0
        )
    ]
    return asked, done, purge.purge(target)


def _left_after_one_run(ceph, target):
    """Return what one run leaves once no dead client has an image open."""
    wait_for_dead_clients(ceph, target.name)
    _run_once(target)
    return [
        *target.directory.names("snapshot_"),
        *target.trash.entries(),
        *target.objects.omap_get(journal.OBJECT, ""),
    ]


def test_making(forks, ceph, here, new_disk):
    target = Pool(here, "snapshots")
    killed = storage_child.kill_at_each_step(forks, ceph, "snapshot", new_disk)
    asked, done, _ = _run_once(target)
    assert (asked, done) == ([], [])
    print(f"\nsnapshot: {len(killed)} steps")
    assert _left_after_one_run(ceph, target) == []


def test_detaching(forks, ceph, here, new_disk):
    target = Pool(here, "snapshots")
    killed = storage_child.kill_at_each_step(forks, ceph, "detach", new_disk)
    _run_once(target)
    found = target.directory.names("snapshot_")
    # Glance was told of the last snapshots, but not of the first ones.
    assert 4 < len(found) < len(killed)
    for name in found:
        with target.open(name, snap="snap") as image:
            assert image.read(0, len(CONTENT)) == CONTENT
        with target.open(name) as image:
            assert image.parent() is None
            assert [snap.name for snap in image.snaps()] == ["snap"]
    print(f"\ndetaching: {len(killed)} steps, {len(found)} snapshots kept")
    for name in found:
        discard.discard(target, name)
    assert _left_after_one_run(ceph, target) == []
