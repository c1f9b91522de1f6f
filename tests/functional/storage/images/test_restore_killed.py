# SPDX-License-Identifier: Apache-2.0

"""A process may die while it restores a disk from the trash.

The disk is lost to no purge, and the operator restores it again.
"""

import uuid

import pytest

from nova_rbd_backend import names
from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.disks import delete, provision
from nova_rbd_backend.storage.images import purge, restore
from tests.support import storage_child
from tests.support.blank_disks import blank_disk
from tests.support.clients import in_threads
from tests.testbed.process import wait_for

MIB = 1 << 20
HOUR = 3600
SNAP = "nova-resize"


@pytest.fixture
def deleted_disk(vms):
    """Return a function that makes a disk, and deletes it for an hour.

    After the test the disks are deleted and purged.
    """
    made = []

    def make():
        instance = str(uuid.uuid4())
        name = str(names.DiskName(instance, "disk"))
        blank_disk(vms, name, 8 * MIB)
        with vms.open(name, read_only=False) as disk:
            disk.write(b"mine", 0)
            disk.create_snap(SNAP)
        made.append(name)
        delete.delete_disks(vms, instance, retention_seconds=HOUR)
        return name, name

    yield make
    for name in made:
        delete.delete_disk(vms, name)
    purge.purge(vms)

    def trashed():
        return {entry.name for entry in vms.trash.entries()} & set(made)

    wait_for("the disks are purged", lambda: not trashed(), 40, 1)


def _restore_again(vms, killed, monkeypatch):
    """Restore the disks that are not; return how many were."""
    # As if the processes had died some minutes ago.
    monkeypatch.setattr(purge, "_LONGEST_MOVE_SECONDS", 0.0)
    assert purge.purge(vms).purged == ()

    def recover(entry):
        _, name = entry
        found = restore.find(vms, name)
        for trashed in found:
            restore.restore(vms, trashed)
        assert provision.is_whole(vms, name)
        return not found

    restored = sum(in_threads(recover, killed))
    assert purge.purge(vms).purged == ()
    for _, name in killed:
        assert restore.find(vms, name) == []
        assert provision.is_whole(vms, name)
        with vms.open(name) as disk:
            assert disk.read(0, 4) == b"mine"
            assert [snap.name for snap in disk.snaps()] == [SNAP]
            assert journal.deletion(vms, disk.image_id) is None
    return restored


def test_each_step(forks, ceph, vms, deleted_disk, monkeypatch):
    killed = storage_child.kill_at_each_step(
        forks, ceph, "restore", deleted_disk, at_least=6
    )
    restored = _restore_again(vms, killed, monkeypatch)
    print(f"restore: {len(killed)} steps, restored after {restored}")
    assert 0 < restored < len(killed)


def test_inside_librbd(forks, ceph, vms, deleted_disk, monkeypatch, tmp_path):
    killed = storage_child.kill_inside_librbd(
        forks, ceph, "restore", deleted_disk, tmp_path
    )
    restored = _restore_again(vms, killed, monkeypatch)
    print(f"{restored} of {len(killed)} were restored")
