# SPDX-License-Identifier: Apache-2.0

"""Deletion frees names at once and space later, and forgets nothing."""

import dataclasses
import json
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import pytest
import rbd

from nova_rbd_backend import errors, names, notices
from nova_rbd_backend.ceph import layouts
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.ceph.trash import Trash
from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage import process as process_
from nova_rbd_backend.storage.disks import delete, provision
from nova_rbd_backend.storage.images import discard, purge
from tests.support.blank_disks import blank_disk
from tests.support.clients import (
    connect,
    in_threads,
    inactive,
    lock_of_a_dead_client,
)
from tests.testbed.process import wait_for

MIB = 1 << 20


@pytest.fixture
def name(pool, name):
    """The name of a disk that exists."""
    pool.create(name, MIB)
    return name


def _kept(kept, name):
    return [entry.reason for entry in kept if entry.image == name]


def _delete_and_purge(pool, instance):
    deleted = delete.delete_disks(pool, instance).deleted
    return deleted, purge.purge(pool)


def test_delete(pool, instance):
    for disk in ("disk", "disk.eph0"):
        pool.create(f"{instance}_{disk}", MIB)
    names = (f"{instance}_disk", f"{instance}_disk.eph0")
    report = delete.delete_disks(pool, instance)
    assert report.deleted == names
    assert report.undone == ()
    assert pool.directory.names(instance) == []
    assert set(names) <= set(purge.purge(pool).purged)
    assert not [e for e in journal.deletions(pool) if e.image in names]
    assert delete.delete_disks(pool, instance).deleted == ()


@pytest.fixture
def group(pool, instance):
    """A group of RBD; return a function that takes an image out of it."""
    group_name = f"group of {instance}"
    with pool._access.reach("make a group") as ioctx:
        rbd.RBD().group_create(ioctx, group_name)
        made = rbd.Group(ioctx, group_name)

        def take_out(name):
            made.remove_image(ioctx, name)

        made.add_image(ioctx, f"{instance}_disk")
        yield take_out
        rbd.RBD().group_remove(ioctx, group_name)


def test_disk_in_a_group_of_rbd(pool, instance, name, group):
    """The error tells how to take it out of the group.

    Ceph 16 and 18 move it to the trash, and then do not free it. Later ones
    refuse to move it.
    """
    with pytest.raises(errors.InGroup, match="rbd group image rm"):
        pool.remove(name)
    image_id = pool.directory.image_id(name)
    try:
        assert delete.delete_disks(pool, instance).deleted == (name,)
    except errors.InGroup:
        group(name)
        assert delete.delete_disks(pool, instance).deleted == (name,)
    else:
        report = purge.purge(pool)
        assert name not in report.purged
        (reason,) = _kept(report.stuck, name)
        assert "rbd group image rm" in reason
        pool.trash.restore(image_id, name)
        group(name)
        assert delete.delete_disks(pool, instance).deleted == (name,)
    assert name in purge.purge(pool).purged


def test_discarded_while_a_purge_frees_it(pool, instance):
    """As a purge and Nova's deletion may undo the same half-made disk."""

    def discard_it(name, image_id):
        discard.discard(pool, name)

    def free_it(name, image_id):
        discard.discard(pool, name)
        purge.purge_one(pool, name, image_id)

    image_ids = []
    for number in range(12):
        name = f"{instance}_disk.{number}"
        pool.create(name, MIB)
        image_ids.append(pool.directory.image_id(name))
        in_threads(
            lambda work: work(),
            [
                partial(work, name, image_ids[-1])
                for work in (discard_it, free_it)
            ],
        )
        assert not pool.directory.exists(name)
    purge.purge(pool)
    assert not any(pool.trash.get(image_id) for image_id in image_ids)


def test_delete_some_disks(pool, instance):
    for disk in ("disk", "disk.local"):
        pool.create(f"{instance}_{disk}", MIB)
    report = delete.delete_disks(
        pool, instance, lambda name: name.endswith("disk.local")
    )
    assert report.deleted == (f"{instance}_disk.local",)
    assert pool.directory.names(instance) == [f"{instance}_disk"]


def test_own_snaps_are_removed_too(pool, instance, name):
    with pool.open(name, read_only=False) as disk:
        disk.create_snap("nova-resize")
        disk.create_snap("nova-rbd-x")
        disk.protect_snap("nova-rbd-x")
    _, report = _delete_and_purge(pool, instance)
    assert name in report.purged


def test_foreign_snaps_are_reported_until_they_are_gone(pool, instance, name):
    image_id = pool.directory.image_id(name)
    with pool.open(name, read_only=False) as disk:
        disk.create_snap("backup")
        disk.create_snap("nova-resize")
    deleted, report = _delete_and_purge(pool, instance)
    assert deleted == (name,)
    assert _kept(report.stuck, name) == ["has snaps backup"]
    assert _kept(purge.purge(pool).stuck, name)
    with pool.open(image_id=image_id, read_only=False) as disk:
        disk.remove_snap("backup")
    assert name in purge.purge(pool).purged


def test_open_image_is_reported_until_it_is_closed(pool, instance, name):
    with pool.open(name, read_only=False) as disk:
        (client,) = disk.clients()
        deleted, report = _delete_and_purge(pool, instance)
        assert deleted == (name,)
        (reason,) = _kept(report.stuck, name)
        assert client.address in reason
    assert name in purge.purge(pool).purged


def test_retention(pool, instance, name):
    delete.delete_disks(pool, instance, retention_seconds=3600)
    report = purge.purge(pool)
    (reason,) = _kept(report.waiting, name)
    assert reason.startswith("kept until ")
    assert not _kept(report.stuck, name)


def test_parent_waits_for_its_clones(pool, instance, name):
    with pool.open(name, read_only=False) as disk:
        disk.write(b"parent", 0)
        disk.create_snap("published")
    pool.clone(pool, name, "published", f"child-{instance}")
    deleted, report = _delete_and_purge(pool, instance)
    assert deleted == (name,)
    assert _kept(report.stuck, name) == [
        f"has snaps published with clones vms/child-{instance}"
    ]
    with pool.open(f"child-{instance}") as child:
        assert child.read(0, 6) == b"parent"


def _take_from_directory(pool, name):
    """Leave of an image what librbd sees of it while it is removed."""
    image_id = pool.directory.image_id(name)
    pool.directory.remove_listed(name, image_id)
    return image_id


def _list_again(pool, name, image_id):
    connection = pool.cluster.connection()
    connection.ioctx(pool.name, pool.namespace).execute(
        layouts.DIRECTORY,
        *("rbd", "dir_add_image"),
        layouts.listed(name, image_id),
    )


def _deleted(pool, name):
    return [entry for entry in journal.deletions(pool) if entry.image == name]


def _replace(pool, name):
    """Make another disk of this name; return the id of each.

    The first one stays, under another name.
    """
    image_id = pool.directory.image_id(name)
    pool.directory.publish(name, image_id, f"{name}.old")
    pool.create(name, MIB)
    return image_id, pool.directory.image_id(name)


def test_disk_that_has_got_the_name_while_a_delete_waits(
    ceph, pool, instance, name
):
    """As a rebuild may make one on another host."""
    other = Pool(connect(ceph, operation_timeout_seconds=50), "vms")
    with ThreadPoolExecutor() as threads:
        with other.open(name, read_only=False):
            deleting = threads.submit(delete.delete_disks, pool, instance)
            wait_for("the delete has begun", partial(_deleted, pool, name), 30)
            old_id, new_id = _replace(pool, name)
        deleting.result(60)
    assert pool.directory.image_id(name) == new_id
    assert pool.trash.get(new_id) is None
    assert pool.directory.image_id(f"{name}.old") == old_id
    assert journal.deletion(pool, old_id) is None
    delete.delete_disks(pool, instance)


def test_disk_that_has_got_the_name_while_clients_are_fenced(
    pool, instance, name, monkeypatch
):
    ids, fence = [], delete.fencing.fence

    def fence_as_another_replaces_it(*images):
        if not ids:
            ids.extend(_replace(pool, name))
        return fence(*images)

    monkeypatch.setattr(delete.fencing, "fence", fence_as_another_replaces_it)
    delete.delete_disks(pool, instance)
    assert pool.directory.image_id(name) == ids[1]
    assert pool.trash.get(ids[1]) is None
    delete.delete_disks(pool, instance)


def test_disk_whose_clones_cannot_be_listed_is_not_forgotten(
    pool, instance, name
):
    """A clone goes after librbd has read its id, and before its name."""
    image_id, child = pool.directory.image_id(name), f"child-{instance}"
    with pool.open(name, read_only=False) as disk:
        disk.create_snap("nova-rbd-x")
    pool.clone(pool, name, "nova-rbd-x", child)
    child_id = _take_from_directory(pool, child)
    _, report = _delete_and_purge(pool, instance)
    assert name not in report.purged
    (reason,) = _kept(report.stuck, name)
    assert "recorded as a clone" in reason
    assert pool.trash.get(image_id) is not None
    assert journal.deletion(pool, image_id) is not None
    _list_again(pool, child, child_id)
    pool.remove(child)
    assert name in purge.purge(pool).purged
    assert pool.trash.get(image_id) is None


def test_purge_leaves_the_clients_of_a_listed_disk_alone(ceph, pool, name):
    """A delete that timed out has left its entry, and the disk goes on."""
    image_id = pool.directory.image_id(name)
    journal.begin_deletion(pool, name, image_id, ())
    with (
        lock_of_a_dead_client(ceph, image_id) as client_id,
        notices.collected() as noted,
    ):
        kept = purge.purge_one(pool, name, image_id)
    assert noted == []
    assert [lock.client_id for lock in pool.holders.locks(image_id)] == [
        client_id
    ]
    assert kept.reason == "its move to the trash is under way"


def test_delete_that_is_cut_off_when_the_disk_is_in_the_trash(
    pool, name, monkeypatch
):
    image_id = pool.directory.image_id(name)
    move = Trash.move

    def move_and_be_cut_off(*args):
        move(*args)
        raise errors.DiskBusy

    with monkeypatch.context() as patch:
        patch.setattr(Trash, "move", move_and_be_cut_off)
        with pytest.raises(errors.DiskBusy):
            discard.discard(pool, name, busy_limit_seconds=0)
    assert pool.trash.get(image_id) is not None
    assert name in purge.purge(pool).purged
    assert pool.trash.get(image_id) is None


def test_half_made_disks_are_undone(pool, instance):
    names = [f"{instance}_disk", f"{instance}_swap"]
    pool.create(journal.begin_creation(pool, names[0]).draft, MIB)
    journal.begin_creation(pool, names[1])
    report = delete.delete_disks(pool, instance)
    assert report.undone == (names[0],)
    assert report.deleted == ()
    assert journal.creations(pool, instance) == []
    assert pool.directory.names(instance) == []


def test_one_half_made_disk_is_undone(pool, instance):
    """As well as the whole disk of that name, and no other attempt."""
    made, other = f"{instance}_disk", f"{instance}_swap"
    blank_disk(pool, made, MIB)
    attempts = [journal.begin_creation(pool, name) for name in (made, other)]
    for attempt in attempts:
        pool.create(attempt.draft, MIB)
    delete.delete_disk(pool, made)
    assert journal.creations(pool, instance) == attempts[1:]
    assert pool.directory.names(instance) == [attempts[1].draft]


def test_half_made_rescue_disk_goes_with_the_rescue_disks(pool, instance):
    entries = {
        disk: journal.begin_creation(pool, f"{instance}_{disk}")
        for disk in ("disk", "disk.rescue")
    }
    for entry in entries.values():
        pool.create(entry.draft, MIB)
    report = delete.delete_disks(
        pool, instance, lambda name: name.endswith(".rescue")
    )
    assert report.undone == (f"{instance}_disk.rescue",)
    assert pool.directory.names(instance) == [entries["disk"].draft]


def test_other_pool_that_does_not_answer(ceph, pool, instance, name):
    """It has the disk of a snapshot that a purge undoes in this pool."""
    hasty = Pool(connect(ceph, operation_timeout_seconds=2), "vms")
    source = journal.Source("images", "1f", "nova-rbd-x")
    snapshot = names.snapshot_image(instance)
    entry = journal.begin_creation(hasty, snapshot, source)
    delete.delete_disks(hasty, instance)
    with ceph.admin() as admin, inactive(admin, "images"):
        report = purge.purge(hasty)
    assert name in report.purged
    (reason,) = _kept(report.stuck, entry.draft)
    assert "images/1f" in reason
    purge.purge(hasty)
    assert journal.creations(hasty, snapshot) == []


def test_purge_undoes_a_draft_of_this_process(pool, instance):
    entry = journal.begin_creation(pool, f"{instance}_disk")
    pool.create(entry.draft, MIB)
    purge.purge(pool)
    assert not pool.directory.exists(entry.draft)


def test_purge_undoes_drafts_of_dead_processes_of_this_host(pool, instance):
    dead = subprocess.Popen(["true"])
    dead.wait()
    entry = journal.begin_creation(pool, f"{instance}_disk")
    pool.create(entry.draft, MIB)
    with journal.sole_maker(pool, entry.image):
        purge.purge(pool)
        assert pool.directory.exists(entry.draft), "the disk is being made"
    left = dataclasses.replace(entry, pid=dead.pid).encoded()
    assert pool.objects.omap_swap(
        journal.OBJECT, entry.key, entry.stored, left.stored
    )
    purge.purge(pool)
    assert not pool.directory.exists(entry.draft)
    assert journal.creations(pool, instance) == []


def test_entry_of_a_removed_image_is_dropped(pool, name):
    journal.begin_deletion(pool, name, pool.directory.image_id(name), ())
    pool.remove(name)
    purge.purge(pool)
    assert not [e for e in journal.deletions(pool) if e.image == name]


def test_purge_ends_at_its_limits(pool, instance):
    purge.purge(pool)  # frees what other tests have deleted
    disks = {f"{instance}_{disk}" for disk in ("disk", "swap")}
    for disk in disks:
        blank_disk(pool, disk, MIB)
    delete.delete_disks(pool, instance)

    def trashed():
        return {entry.name for entry in pool.trash.entries()} & disks

    first = purge.purge(pool, max_images=1)
    (freed,) = first.purged
    (kept,) = disks - {freed}
    assert first.left >= 1
    assert trashed() == {kept}
    late = purge.purge(pool, limit_seconds=-1)
    assert late.purged == ()
    assert late.left >= 1
    assert trashed() == {kept}
    assert purge.purge(pool).purged == (kept,)
    assert trashed() == set()


@pytest.mark.parametrize("snap", ["base", "snap"])
def test_snap_of_a_base_or_snapshot_is_foreign_to_a_disk(
    pool, instance, name, snap
):
    with pool.open(name, read_only=False) as disk:
        disk.create_snap(snap)
    _, report = _delete_and_purge(pool, instance)
    assert _kept(report.stuck, name) == [f"has snaps {snap}"]


def _deletion(pool, instance):
    """Delete a disk, and return its entry."""
    name = f"{instance}_disk"
    pool.create(name, MIB)
    delete.delete_disks(pool, instance)
    (entry,) = [e for e in journal.deletions(pool) if e.image == name]
    return entry


def _claimed_by(pool, entry, process, seconds=60):
    """Claim the entry as another process, and return it."""
    changed = dataclasses.replace(
        entry, claim=str(process), claimed_until=time.time() + seconds
    ).encoded()
    assert pool.objects.omap_swap(
        journal.OBJECT, entry.key, entry.stored, changed.stored
    )
    return changed


def test_image_that_another_host_frees_is_waiting(pool, instance):
    elsewhere = process_.Process("elsewhere", 1, "x")
    entry = _claimed_by(pool, _deletion(pool, instance), elsewhere)
    report = purge.purge(pool)
    assert _kept(report.waiting, entry.image) == ["being freed by elsewhere"]
    _claimed_by(pool, entry, elsewhere, seconds=-1)
    assert entry.image in purge.purge(pool).purged


def test_one_claim_at_a_time(pool, instance):
    entry = _deletion(pool, instance)
    with journal.claimed(pool, entry, 60) as claim:
        with journal.claimed(pool, claim.entry, 60) as second:
            assert second is None
        with journal.claimed(pool, entry, 60) as outdated:
            assert outdated is None
        assert entry.image not in purge.purge(pool).purged
    (entry,) = [e for e in journal.deletions(pool) if e.key == entry.key]
    with suppress(KeyError), journal.claimed(pool, entry, 60) as claim:
        assert claim, "the first claim has not ended"
        raise KeyError
    assert entry.image in purge.purge(pool).purged


def test_finished_claim_ends_the_entry(pool, instance):
    entry = _deletion(pool, instance)
    with journal.claimed(pool, entry, 60) as claim:
        claim.finish()
    assert journal.deletion(pool, entry.image_id) is None
    pool.trash.remove(entry.image_id)


def test_claim_of_a_living_process_counts(pool, instance):
    entry = _claimed_by(
        pool, _deletion(pool, instance), process_.of_pid(os.getppid())
    )
    with journal.claimed(pool, entry, 60) as claim:
        assert claim is None
    assert entry.image not in purge.purge(pool).purged


def test_claim_of_a_dead_process_is_ignored(pool, instance):
    dead = subprocess.Popen(["true"])
    dead.wait()
    entry = _claimed_by(
        pool,
        _deletion(pool, instance),
        dataclasses.replace(process_.this_process(), pid=dead.pid),
    )
    assert entry.image in purge.purge(pool).purged


def test_claim_that_this_process_could_not_end_is_ignored(pool, instance):
    """Ceph did not answer at the end of the claim's ``with`` block."""
    entry = _claimed_by(
        pool, _deletion(pool, instance), process_.this_process()
    )
    assert entry.image in purge.purge(pool).purged


def test_purge_between_the_entry_and_the_move(pool, name):
    """Another host purges too early, and the next purge frees the image."""
    image_id = pool.directory.image_id(name)
    journal.begin_deletion(pool, name, image_id, discard.OWN_SNAPS)
    assert name not in purge.purge(pool).purged
    pool.trash.move(name)
    assert name in purge.purge(pool).purged
    assert pool.trash.get(image_id) is None


def _purged_during_the_move(pool):
    """Purge before each move to the trash; return the list of reports."""
    reports = []
    move = pool.trash.move

    def move_as_another_purges(name, *more):
        reports.append(purge.purge(pool))
        move(name, *more)

    pool.trash.move = move_as_another_purges
    return reports


@pytest.mark.parametrize("older", [True, False])
def test_purge_that_takes_the_entry_for_abandoned(
    pool, instance, name, older, monkeypatch
):
    """The entry is an older attempt's, or the other host's clock is ahead."""
    image_id = pool.directory.image_id(name)
    if older:
        entry = journal.begin_deletion(pool, name, image_id, discard.OWN_SNAPS)
        old = dataclasses.replace(entry, begun_at=entry.begun_at - 300)
        assert pool.objects.omap_swap(
            journal.OBJECT, entry.key, entry.stored, old.encoded().stored
        )
    else:
        monkeypatch.setattr(purge, "_LONGEST_MOVE_SECONDS", -1.0)
    reports = _purged_during_the_move(pool)
    delete.delete_disks(pool, instance)
    (report,) = reports
    assert name not in report.purged
    assert _kept(report.waiting, name) == ["it is a disk, and stays one"]
    assert name in purge.purge(pool).purged
    assert pool.trash.get(image_id) is None
    assert journal.deletion(pool, image_id) is None


def test_entry_of_a_later_version_is_purged_too(pool, instance):
    entry = _deletion(pool, instance)
    later = json.dumps({**json.loads(entry.stored), "colour": "red"})
    assert pool.objects.omap_swap(
        journal.OBJECT, entry.key, entry.stored, later
    )
    assert entry.image in purge.purge(pool).purged
    assert not [e for e in journal.deletions(pool) if e.image == entry.image]


def test_purge_that_drops_the_entry_too_late(pool, instance, name):
    image_id = pool.directory.image_id(name)
    as_read = journal.begin_deletion(pool, name, image_id, discard.OWN_SNAPS)
    delete.delete_disks(pool, instance)
    journal.end(pool, as_read)
    assert name in purge.purge(pool).purged
    assert pool.trash.get(image_id) is None


def test_disk_restored_under_another_name_is_not_reported_as_purged(
    pool, instance, name, monkeypatch
):
    image_id = pool.directory.image_id(name)
    delete.delete_disks(pool, instance)
    pool.trash.restore(image_id, f"{name}.kept")
    monkeypatch.setattr(purge, "_LONGEST_MOVE_SECONDS", -1.0)
    assert name not in purge.purge(pool).purged
    assert journal.deletion(pool, image_id) is None
    assert pool.directory.image_id(f"{name}.kept") == image_id
    delete.delete_disks(pool, instance)
    purge.purge(pool)


def test_disk_restored_from_the_trash_is_a_disk_again(pool, instance, name):
    image_id = pool.directory.image_id(name)
    delete.delete_disks(pool, instance, retention_seconds=3600)
    pool.trash.restore(image_id, name)
    assert provision.is_whole(pool, name)
    assert not blank_disk(pool, name, MIB).created
    purge.purge(pool)
    assert pool.directory.image_id(name) == image_id


@pytest.mark.parametrize("ended", [True, False])
def test_disk_that_is_in_the_trash_too_is_not_freed(
    pool, instance, name, ended
):
    """As an earlier release left a draft that was published and undone."""
    image_id = pool.directory.image_id(name)
    entry = journal.begin_deletion(pool, f"{name}.draft", image_id, ())
    pool.directory._rename_listed(name, image_id, f"{name}.draft")
    pool.trash.move(f"{name}.draft")
    listed = layouts.listed(name, image_id)
    with pool._access.reach("list", image=name) as ioctx:
        ioctx.execute(layouts.DIRECTORY, "rbd", "dir_add_image", listed)
        if not ended:
            state = layouts.begin_of_move(image_id)
            ioctx.execute(layouts.TRASH, "rbd", "trash_state_set", state)
    report = purge.purge(pool)
    assert entry.image not in report.purged
    assert _kept(report.waiting, entry.image) == [
        "it is a disk, and stays one"
    ]
    assert provision.is_whole(pool, name)
    assert pool.trash.get(image_id) is None
    assert journal.deletion(pool, image_id) is None
    assert _delete_and_purge(pool, instance)[0] == (name,)
