# SPDX-License-Identifier: Apache-2.0

"""nova-rbd trash: list, restore and purge deleted disks."""

import pytest

from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.disks import delete, provision
from nova_rbd_backend.storage.images import purge
from tests.support.blank_disks import blank_disk

MIB = 1 << 20
HOUR = 3600


@pytest.fixture
def deleted(vms, instance, parent):
    """The name of a deleted disk that is kept for an hour."""
    name = f"{instance}_disk"
    provision.clone_disk(vms, name, parent)
    with vms.open(name, read_only=False) as disk:
        disk.write(b"mine", 0)
        disk.create_snap("nova-resize")
    delete.delete_disks(vms, instance, retention_seconds=HOUR)
    yield name
    delete.delete_disks(vms, instance)
    for each in vms.trash.entries():
        if each.name == name:
            purge.purge_one(vms, name, each.image_id, force=True)
    purge.purge(vms)


def trashed(vms, name):
    return [each for each in vms.trash.entries() if each.name == name]


def test_list(vms, nova_rbd, instance, deleted):
    other = f"{instance}_disk.swap"
    blank_disk(vms, other, MIB)
    delete.delete_disks(vms, instance, only=lambda name: name == other)

    found = {
        each["Name"]: each
        for each in nova_rbd.json("trash", "list", "--instance", instance)
    }

    kept = found[deleted]
    assert kept["Id"] == trashed(vms, deleted)[0].image_id
    assert (kept["Kind"], kept["State"]) == ("disk", "kept")
    assert kept["Size"] == 8 * MIB
    assert kept["Deleted"] < kept["Kept until"]
    assert found[other]["State"] == "due"
    assert deleted in nova_rbd.table("trash", "list")


def test_restore(vms, nova_rbd, instance, deleted):
    (image,) = trashed(vms, deleted)

    (row,) = nova_rbd.json("trash", "restore", "--dry-run", deleted)

    assert row["Result"] == "would be restored"
    assert trashed(vms, deleted) == [image]

    (row,) = nova_rbd.json("trash", "restore", deleted)

    assert row == {
        "Pool": "vms",
        "Name": deleted,
        "Id": image.image_id,
        "Result": "restored",
    }
    # It is a disk again: nova-compute finds it, and a purge spares it.
    assert provision.is_whole(vms, deleted)
    assert journal.deletion(vms, image.image_id) is None
    purge.purge(vms)
    with vms.open(deleted) as disk:
        assert disk.read(0, 4) == b"mine"
        assert [snap.name for snap in disk.snaps()] == ["nova-resize"]
    assert "it is not there" in nova_rbd.refused("trash", "restore", deleted)


def test_restore_where_the_name_is_taken(vms, nova_rbd, deleted):
    blank_disk(vms, deleted, MIB)

    for more in ((), ("--dry-run",)):
        refusal = nova_rbd.refused("trash", "restore", *more, deleted)
        assert "the name is taken" in refusal

    assert len(trashed(vms, deleted)) == 1
    with vms.open(deleted) as disk:
        assert disk.size_bytes() == MIB


def test_restore_while_it_is_being_freed(vms, nova_rbd, deleted):
    (image,) = trashed(vms, deleted)
    entry = journal.deletion(vms, image.image_id)
    with journal.claimed(vms, entry, 60) as claim:
        assert claim is not None
        refusal = nova_rbd.refused("trash", "restore", deleted)

    assert "being freed" in refusal
    assert nova_rbd.json("trash", "restore", deleted)


def test_several_of_one_name(vms, nova_rbd, instance, deleted):
    blank_disk(vms, deleted, MIB)
    delete.delete_disks(vms, instance, retention_seconds=HOUR)
    first, second = trashed(vms, deleted)

    refusal = nova_rbd.refused("trash", "restore", deleted)

    assert first.image_id in refusal
    assert second.image_id in refusal
    nova_rbd.json("trash", "restore", f"vms/{second.image_id}")
    assert vms.directory.image_id(deleted) == second.image_id


def test_purge_spares_disks_that_are_kept(vms, nova_rbd, instance, deleted):
    due = f"{instance}_disk.swap"
    blank_disk(vms, due, MIB)
    delete.delete_disks(vms, instance, only=lambda name: name == due)

    rows = nova_rbd.json("trash", "purge", "--dry-run")

    assert (due, "would be purged") in [(r["Name"], r["Result"]) for r in rows]
    assert deleted not in [row["Name"] for row in rows]
    assert trashed(vms, due)

    rows = nova_rbd.json("trash", "purge")

    results = {row["Name"]: row for row in rows}
    assert results[due]["Result"] == "purged"
    assert results[deleted]["Reason"].startswith("kept until")
    assert not trashed(vms, due)
    assert trashed(vms, deleted)


def test_purge_of_one(vms, nova_rbd, deleted):
    (image,) = trashed(vms, deleted)

    done = nova_rbd.run("trash", "purge", deleted)

    assert done.returncode == 1
    assert "kept until" in done.stdout
    assert trashed(vms, deleted) == [image]
    forced = ("trash", "purge", "--force")
    (row,) = nova_rbd.json(*forced, "--dry-run", deleted)
    assert row["Result"] == "would be purged"
    assert trashed(vms, deleted) == [image]

    (row,) = nova_rbd.json(*forced, deleted)

    assert row["Result"] == "purged"
    assert not trashed(vms, deleted)
    assert journal.deletion(vms, image.image_id) is None
    assert "needs the names" in nova_rbd.refused(*forced)


def test_image_that_others_moved_to_the_trash(vms, nova_rbd, instance):
    name = f"{instance}_disk"
    blank_disk(vms, name, MIB)
    vms.trash.move(name)

    (row,) = nova_rbd.json("trash", "list", "--instance", instance)

    assert row["State"] == "unmanaged"
    assert row["Deleted"] is None
    nova_rbd.json("trash", "purge")
    assert trashed(vms, name)
    nova_rbd.json("trash", "purge", name)
    assert not trashed(vms, name)
