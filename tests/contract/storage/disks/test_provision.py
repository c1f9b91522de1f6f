# SPDX-License-Identifier: Apache-2.0

"""Disks are made whole or not at all."""

import pytest

from nova_rbd_backend import errors, names
from nova_rbd_backend.ceph import transfer
from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.disks import provision
from nova_rbd_backend.storage.images import draft, purge
from tests.support.blank_disks import blank_disk

MIB = 1 << 20
META = {"nova.instance": "x", "nova.project": "y"}


def _entries(pool, name):
    return [
        key
        for key, value in pool.objects.omap_get(journal.OBJECT, "").items()
        if name in value.decode()
    ]


def test_clone_disk(pool, parent, name):
    facts = provision.clone_disk(pool, name, parent, 16 * MIB, META)
    assert (facts.created, facts.grown, facts.undone) == (True, True, False)
    assert facts.size_bytes == 16 * MIB
    assert provision.is_whole(pool, name)
    with pool.open(name) as disk:
        assert disk.parent() == parent
        assert disk.size_bytes() == 16 * MIB
        assert disk.metadata().items() >= META.items()
    assert _entries(pool, name) == []
    again = provision.clone_disk(pool, name, parent, 12 * MIB, META)
    assert (again.created, again.grown) == (False, False)
    grown = provision.clone_disk(pool, name, parent, 20 * MIB, META)
    assert (grown.created, grown.grown) == (False, True)
    assert grown.size_bytes == 20 * MIB


def test_clone_disk_keeps_the_parents_size(pool, parent, name):
    facts = provision.clone_disk(pool, name, parent, 4 * MIB)
    assert (facts.size_bytes, facts.grown) == (8 * MIB, False)


def test_clone_of_a_glance_location(pool, parent, name):
    fsid = pool.cluster.fsid()
    location = names.GlanceLocation(
        fsid, parent.pool, parent.image, parent.snap
    )
    assert provision.clone_disk(pool, name, location).created
    other = names.GlanceLocation("no", *location.url.split("/")[3:])
    with pytest.raises(errors.InvalidLocation):
        provision.clone_disk(pool, name, other)


def test_clone_of_a_missing_parent_leaves_nothing(pool, name):
    gone = names.SnapPath("images", "", "nope", "snap")
    with pytest.raises(errors.ImageNotFound):
        provision.clone_disk(pool, name, gone)
    assert not pool.directory.exists(name)
    assert _entries(pool, name) == []


def test_blank_disk(pool, name):
    facts = blank_disk(pool, name, 2 * MIB, META)
    assert (facts.created, facts.size_bytes) == (True, 2 * MIB)
    assert not blank_disk(pool, name, 2 * MIB).created


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source.raw"
    with path.open("wb") as file:
        file.truncate(13 * MIB + 5)
        file.seek(5 * MIB)
        file.write(b"data" * MIB)
        file.seek(10 * MIB)
        file.write(bytes(2 * MIB))
        file.seek(13 * MIB)
        file.write(b"end!!")
    return path


def test_import_and_export(pool, name, source, tmp_path):
    seen = []
    facts = provision.import_disk(
        pool, name, str(source), 20 * MIB, META, seen.append
    )
    assert (facts.created, facts.size_bytes) == (True, 20 * MIB)
    assert 4 * MIB <= facts.bytes_written < 5 * MIB
    assert seen == sorted(seen)
    target = tmp_path / "target.raw"
    with pool.open(name) as disk:
        written = transfer.export(disk, str(target))
    assert 4 * MIB <= written < 5 * MIB
    content = target.read_bytes()
    assert len(content) == 20 * MIB
    assert content[: 13 * MIB + 5] == source.read_bytes()
    assert not any(content[13 * MIB + 5 :])
    assert target.stat().st_blocks * 512 < 6 * MIB


def test_import_that_is_cancelled_leaves_nothing(pool, name, source):
    def cancel(done_bytes):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        provision.import_disk(pool, name, str(source), progress=cancel)
    assert not pool.directory.exists(name)
    assert all(key.startswith("delete_") for key in _entries(pool, name))


def test_import_of_a_missing_file(pool, name):
    with pytest.raises(FileNotFoundError):
        provision.import_disk(pool, name, "/nonexistent")
    assert not pool.directory.exists(name)
    assert _entries(pool, name) == []


def test_grow(pool, name):
    with pytest.raises(errors.ImageNotFound):
        provision.grow(pool, name, MIB)
    pool.create(name, 2 * MIB)
    assert not provision.grow(pool, name, MIB)
    assert not provision.grow(pool, name, 2 * MIB)
    assert provision.grow(pool, name, 3 * MIB)
    assert pool.headers.size_bytes(pool.directory.image_id(name)) == 3 * MIB


def test_in_tree_disk_is_whole(pool, name):
    pool.create(name, MIB)
    assert provision.is_whole(pool, name)
    assert not blank_disk(pool, name, MIB).created


def _draft(pool, name, size_bytes=MIB):
    """Leave what a process leaves if it dies while it makes a disk."""
    entry = journal.begin_creation(pool, name)
    pool.create(entry.draft, size_bytes)
    return entry


def test_half_made_disk_is_made_again(pool, parent, name):
    entry = _draft(pool, name)
    assert not pool.directory.exists(name)
    assert not provision.is_whole(pool, name)
    facts = provision.clone_disk(pool, name, parent)
    assert (facts.created, facts.undone) == (True, True)
    assert provision.is_whole(pool, name)
    assert not pool.directory.exists(entry.draft)
    purge.purge(pool)
    assert _entries(pool, name) == []


def test_entry_without_image_is_no_disk(pool, name):
    journal.begin_creation(pool, name)
    assert not provision.is_whole(pool, name)
    facts = blank_disk(pool, name, MIB)
    assert (facts.created, facts.undone) == (True, False)
    assert _entries(pool, name) == []


def test_disk_made_meanwhile_by_an_in_tree_host_is_kept(pool, name):
    entry = _draft(pool, name)
    pool.create(name, 2 * MIB)
    with pytest.raises(errors.ImageExists):
        pool.publish(entry.draft, pool.directory.image_id(entry.draft), name)
    facts = blank_disk(pool, name, MIB)
    assert (facts.created, facts.size_bytes) == (False, 2 * MIB)
    assert not pool.directory.exists(entry.draft)


def test_host_that_was_overtaken_cannot_publish(pool, name):
    entry = _draft(pool, name)
    image_id = pool.directory.image_id(entry.draft)
    assert blank_disk(pool, name, 2 * MIB).created
    with pytest.raises(errors.TakenOver):
        pool.publish(entry.draft, image_id, f"{name}.other")
    assert not draft.settle(pool, entry)
    assert pool.headers.size_bytes(pool.directory.image_id(name)) == 2 * MIB


def test_disk_that_was_never_moved_to_the_trash_stays(pool, name, monkeypatch):
    pool.create(name, MIB)
    image_id = pool.directory.image_id(name)
    journal.begin_deletion(pool, name, image_id, ())
    assert provision.is_whole(pool, name)
    assert not blank_disk(pool, name, MIB).created
    purge.purge(pool)
    assert _entries(pool, name), "the deletion may still begin"
    monkeypatch.setattr(purge, "_LONGEST_MOVE_SECONDS", 0)
    purge.purge(pool)
    assert pool.directory.image_id(name) == image_id
    assert _entries(pool, name) == []


def test_two_threads_do_not_make_the_same_disk(pool, name):
    with (
        journal.sole_maker(pool, name),
        pytest.raises(errors.BeingCreated),
    ):
        blank_disk(pool, name, MIB)
    assert blank_disk(pool, name, MIB).created


def test_creation_entry_of_another_disk_is_left_alone(pool, name):
    other = _draft(pool, f"{name}.eph0")
    assert not blank_disk(pool, name, MIB).undone
    assert pool.directory.exists(other.draft)
    assert draft.settle(pool, other)


def test_replace(pool, parent, name):
    blank_disk(pool, name, MIB)
    old_id = pool.directory.image_id(name)
    facts = provision.clone_disk(
        pool, name, parent, metadata=META, old_kept_seconds=60
    )
    assert facts.created
    with pool.open(name) as disk:
        assert disk.parent() == parent
    assert pool.trash.get(old_id).name == name
    purge.purge_one(pool, name, old_id, force=True)


def test_replace_that_fails_keeps_the_old_disk(pool, name):
    blank_disk(pool, name, MIB)
    gone = names.SnapPath("images", "", "nope", "snap")
    with pytest.raises(errors.ImageNotFound):
        provision.clone_disk(pool, name, gone, old_kept_seconds=0)
    assert provision.is_whole(pool, name)
    assert _entries(pool, name) == []
