# SPDX-License-Identifier: Apache-2.0

"""An image gets its name when it is whole; a failed one leaves nothing."""

import contextlib
import threading
import time
import uuid

import pytest

from nova_rbd_backend import errors, names
from nova_rbd_backend.ceph.directory import Directory
from nova_rbd_backend.image_options import ImageOptions
from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.disks import delete, provision
from nova_rbd_backend.storage.images import draft, purge
from nova_rbd_backend.storage.snapshots import make as snapshots
from tests.support.blank_disks import blank_disk
from tests.support.clients import lock_of_a_dead_client

MIB = 1 << 20
# Moments at which a draft is published while another thread undoes it.
MOMENTS = 16


class Died(BaseException):
    """Stands for the death of the process."""


def left(pool, name):
    """Return the images and the journal's drafts with names that begin so."""
    entries = [entry.draft for entry in journal.creations(pool, name)]
    return [*pool.directory.names(name), *entries]


def test_image_gets_its_name_at_the_end(pool, name):
    with draft.draft(pool, name) as begun:
        pool.create(begun.name, MIB)
        assert not pool.directory.exists(name)
        image_id = begun.image_id
    assert pool.directory.image_id(name) == image_id
    assert left(pool, name) == [name]


@pytest.mark.parametrize("created", [True, False])
def test_an_error_leaves_nothing(pool, name, created):
    def fail():
        with draft.draft(pool, name) as begun:
            if created:
                pool.create(begun.name, MIB)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert left(pool, name) == []
    purge.purge(pool)


def test_name_is_taken_meanwhile(pool, name):
    def make():
        with draft.draft(pool, name) as begun:
            pool.create(begun.name, MIB)
            pool.create(name, 2 * MIB)

    with pytest.raises(errors.ImageExists):
        make()
    assert left(pool, name) == [name]
    image_id = pool.directory.image_id(name)
    assert pool.headers.size_bytes(image_id) == 2 * MIB


def test_only_the_image_that_was_looked_at_is_replaced(pool, instance, name):
    """Another host may have moved it, and made one of its name."""

    def make():
        with draft.draft(pool, name) as begun:
            pool.create(begun.name, MIB)
            pool.directory.publish(name, old_id, f"{name}.old")
            pool.create(name, 2 * MIB)
            begun.replace(old_id, 0)

    pool.create(name, MIB)
    old_id = pool.directory.image_id(name)
    with pytest.raises(errors.ImageExists):
        make()
    new_id = pool.directory.listed_id(name)
    assert pool.headers.size_bytes(new_id) == 2 * MIB
    assert pool.directory.listed_id(f"{name}.old") == old_id
    assert left(pool, name) == [name, f"{name}.old"]
    delete.delete_disks(pool, instance)


@pytest.mark.parametrize("looked_up", [True, False])
def test_draft_is_removed_meanwhile(pool, name, looked_up):
    def make():
        with draft.draft(pool, name) as begun:
            pool.create(begun.name, MIB)
            assert not looked_up or begun.image_id
            draft.settle_attempts(pool, name)

    with pytest.raises(errors.TakenOver):
        make()
    assert left(pool, name) == []
    purge.purge(pool)


@pytest.mark.parametrize("published", [True, False])
def test_source_snap_stays_for_a_snapshot_that_is_published(
    pool, name, published
):
    """Until it is detached; a snapshot that is undone needs it no more."""
    pool.create(name, MIB)
    glance_id = str(uuid.uuid4())
    attempt = snapshots.begin(pool, pool, name, glance_id)
    snapshots.snap(attempt)
    if published:
        snapshots.publish(pool, attempt, {})
        # As if the process had died before it ended the entry.
        entry = attempt.creation
        assert pool.objects.omap_swap(
            journal.OBJECT, entry.key, None, entry.stored
        )
    draft.settle(pool, attempt.creation)
    assert not journal.creations(pool, attempt.creation.image)
    with pool.open(name) as disk:
        found = [snap.name for snap in disk.snaps()]
    assert found == ([attempt.source.snap] if published else [])
    snapshots.undo(pool, attempt)
    purge.purge(pool)


@pytest.fixture(params=[False, True], ids=["plain", "journaled"])
def any_pool(request, pool):
    """A pool whose new images have no journal, and one where they have."""
    if request.param:
        pool.options = ImageOptions(
            features=("layering", "exclusive-lock", "journaling")
        )
    return pool


def _begun(pool, name):
    """Return the entry and the id of a draft that can be published."""
    entry = journal.begin_creation(pool, name)
    pool.create(entry.draft, MIB)
    return entry, pool.directory.image_id(entry.draft)


def test_whole_draft_whose_maker_died_with_its_lock(ceph, any_pool, name):
    """librbd alone leaves the lock, and refuses to rename a journaled one."""
    pool = any_pool
    entry, image_id = _begun(pool, name)
    entry = journal.record_whole(pool, entry)
    with lock_of_a_dead_client(ceph, image_id):
        assert not draft.settle(pool, entry)
    assert left(pool, name) == [name]
    assert pool.directory.image_id(name) == image_id
    assert pool.holders.locks(image_id) == ()


def _publish(pool, entry, image_id):
    """Publish a draft, and undo the attempt if that fails, as its maker."""
    try:
        pool.publish(entry.draft, image_id, entry.image)
    except errors.TakenOver:
        draft.settle(pool, entry)


def test_published_while_another_process_undoes_it(any_pool, name):
    """It is a disk or in the trash, and not both; nothing else is left."""
    pool = any_pool
    entry, _ = _begun(pool, name)
    began = time.monotonic()
    draft.settle(pool, entry)
    seconds = time.monotonic() - began
    published = 0
    for number in range(MOMENTS):
        image = f"{name}.{number}"
        entry, image_id = _begun(pool, image)
        other = threading.Thread(target=draft.settle, args=(pool, entry))
        other.start()
        time.sleep(seconds * number / MOMENTS)
        _publish(pool, entry, image_id)
        other.join(60)
        is_disk = pool.directory.listed_id(image) == image_id
        assert is_disk != (pool.trash.get(image_id) is not None)
        assert pool.directory.exists(image) == is_disk
        assert not pool.directory.exists(entry.draft)
        assert left(pool, image) == [image] * is_disk
        published += is_disk
    print(f"{published} of {MOMENTS} were published")
    assert published < MOMENTS
    assert len(purge.purge(pool).purged) > MOMENTS - published


@pytest.mark.parametrize("first", [True, False])
def test_undone_before_or_after_the_first_step_of_a_publish(
    any_pool, name, first, monkeypatch
):
    """Once a client can open the image by its name, it stays."""
    pool = any_pool
    entry, image_id = _begun(pool, name)
    if first:
        draft.settle(pool, entry)
        with pytest.raises(errors.TakenOver):
            pool.publish(entry.draft, image_id, name)
    else:
        rename = Directory._rename_listed

        def overtaken(self, *called_with):
            monkeypatch.undo()
            assert not draft.settle(pool, entry)
            rename(self, *called_with)

        monkeypatch.setattr(Directory, "_rename_listed", overtaken)
        Directory.publish(pool.directory, entry.draft, image_id, name)
    assert pool.directory.exists(name) is not first
    assert left(pool, name) == [name] * (not first)
    assert provision.is_whole(pool, name) is not first


def _killed_in_publish(pool, entry, image_id, step, monkeypatch):
    """Die after a step of a publish."""
    steps = []

    def dying(method):
        def call(*args):
            method(*args)
            steps.append(method)
            if len(steps) == step:
                raise Died

        return call

    with monkeypatch.context() as patch:
        for each in ("set_id", "_rename_listed", "remove_id"):
            patch.setattr(Directory, each, dying(getattr(Directory, each)))
        with pytest.raises(Died):
            pool.publish(entry.draft, image_id, entry.image)


@pytest.mark.parametrize("step", [1, 2, 3])
def test_restore_of_an_older_disk_after_a_killed_publish(
    pool, instance, name, step, monkeypatch
):
    """``rbd trash restore`` knows nothing of this backend."""
    pool.create(name, 2 * MIB)
    older_id = pool.directory.image_id(name)
    pool.trash.move(name, 3600)
    entry, image_id = _begun(pool, name)
    _killed_in_publish(pool, entry, image_id, step, monkeypatch)
    with contextlib.suppress(errors.ImageExists):
        pool.trash.restore(older_id, name)
    assert not blank_disk(pool, name, MIB).created
    assert pool.directory.image_id(name) == image_id
    assert pool.trash.get(older_id) is not None
    delete.delete_disks(pool, instance)
    assert left(pool, name) == []
    assert name in purge.purge(pool).purged
    pool.trash.remove(older_id, force=True)


def half_published(pool, name, monkeypatch):
    """Make a disk, and have the maker of its snapshot die in the publishing.

    :returns: the attempt, and the entry of the detachment
    """
    pool.create(name, MIB)
    attempt = snapshots.begin(pool, pool, name, str(uuid.uuid4()))
    snapshots.snap(attempt)

    def die(*_args):
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(Directory, "_rename_listed", die)
        patch.setattr(draft, "settle", die)
        with pytest.raises(Died):
            snapshots.publish(pool, attempt, {})
    (entry,) = [
        each
        for each in journal.detachments(pool)
        if each.source == attempt.source
    ]
    return attempt, entry


def test_unknown_snapshot_whose_maker_died_while_it_was_published(
    pool, name, monkeypatch
):
    """Two entries lead to it; the second one does not publish it again."""
    attempt, entry = half_published(pool, name, monkeypatch)
    assert pool.directory.image_id(entry.image) == entry.image_id
    snapshots.remove(pool, entry)
    assert draft.settle(pool, attempt.creation) is False
    assert left(pool, entry.image) == []
    assert not pool.directory.exists(entry.image)
    purge.purge(pool)
    assert pool.trash.get(entry.image_id) is None
    with pool.open(name) as disk:
        assert disk.snaps() == ()


def test_unknown_snapshot_that_is_published_while_it_is_removed(
    pool, name, monkeypatch
):
    """Another thread works on the entry of its creation at that moment."""
    attempt, entry = half_published(pool, name, monkeypatch)
    listed_name = Directory.listed_name

    def listed_before(self, image_id):
        found = listed_name(self, image_id)
        draft.settle(pool, attempt.creation)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Directory, "listed_name", listed_before)
        snapshots.remove(pool, entry)
    assert left(pool, entry.image) == []
    assert not pool.directory.exists(entry.image)
    assert pool.trash.get(entry.image_id) is not None
    purge.purge(pool)
    with pool.open(name) as disk:
        assert disk.snaps() == ()


def test_older_disk_that_was_restored_over_a_half_published_one(
    pool, instance, name
):
    """As an earlier release left it, which changed the directory first."""
    pool.create(name, 2 * MIB)
    older_id = pool.directory.image_id(name)
    pool.trash.move(name, 3600)
    entry, image_id = _begun(pool, name)
    pool.directory._rename_listed(entry.draft, image_id, name)
    pool.trash.restore(older_id, name)
    assert not blank_disk(pool, name, MIB).created
    assert pool.directory.listed_id(name) == older_id
    assert pool.trash.get(image_id) is not None
    assert left(pool, name) == [name]
    delete.delete_disks(pool, instance)
    assert name in purge.purge(pool).purged
    assert left(pool, name) == []


def test_name_that_another_publish_has_taken_is_not_given_back(pool, name):
    """Two publishes at once, the first of them by an earlier release."""
    entry, image_id = _begun(pool, name)
    pool.directory._rename_listed(entry.draft, image_id, name)
    other, other_id = _begun(pool, name)
    pool.directory.set_id(name, other_id)
    with pytest.raises(errors.Conflict):
        draft.settle(pool, entry)
    assert pool.directory.listed_id(name) == image_id
    assert pool.directory.listed_name(other_id) == other.draft
    # The other publish fails, and is undone.
    with pytest.raises(errors.ImageExists):
        pool.publish(other.draft, other_id, name)
    assert draft.settle(pool, other)
    assert not draft.settle(pool, entry)
    assert pool.directory.image_id(name) == image_id
    assert left(pool, name) == [name]


def test_draft_that_was_taken_away_is_deleted_with_its_instance(
    pool, instance, name
):
    """Whoever took it away died, and its entry has been ended."""
    entry, image_id = _begun(pool, name)
    undone = names.undone_draft(entry.draft)
    pool.directory._rename_listed(entry.draft, image_id, undone)
    journal.end(pool, entry)
    assert delete.delete_disks(pool, instance).deleted == (undone,)
    assert left(pool, name) == []
    assert not pool.directory.exists(entry.draft)
    assert undone in purge.purge(pool).purged


def test_disk_that_cannot_be_deleted_leaves_no_other(pool, instance, name):
    """Nor does its half-made draft."""
    entry, image_id = _begun(pool, name)
    pool.directory._rename_listed(entry.draft, image_id, name)
    other, other_id = _begun(pool, name)
    pool.directory.set_id(name, other_id)
    swap = f"{instance}_disk.swap"
    blank_disk(pool, swap, MIB)
    with pytest.raises(errors.Conflict):
        delete.delete_disks(pool, instance)
    assert pool.directory.names(swap) == []
    assert not pool.directory.exists(other.draft)
    pool.directory.set_id(name, image_id)
    delete.delete_disks(pool, instance)
    assert left(pool, instance) == []


def _events(ceph, image_id):
    """Return the data of an image's journal, as rbd-mirror reads it."""
    with ceph.admin() as admin, admin.open_ioctx("vms") as ioctx:
        keys = [each.key for each in ioctx.list_objects()]
        return b"".join(
            ioctx.read(key)
            for key in keys
            if key.startswith("journal_data.") and f".{image_id}." in key
        )


def test_name_and_metadata_of_a_journaled_disk_are_events(
    ceph, any_pool, name
):
    """Else the copies of rbd-mirror keep the draft's name, and lack these."""
    pool = any_pool
    meta = {"nova.key": "of the instance", "other": "x"}
    blank_disk(pool, name, MIB, meta)
    image_id = pool.directory.image_id(name)
    assert pool.headers.metadata(image_id) == meta
    events = _events(ceph, image_id)
    expected = [name, *meta, *meta.values()]
    found = [each for each in expected if each.encode() in events]
    assert found == (expected if pool.headers.has_journal(image_id) else [])


def test_librbds_options_of_a_journaled_disk_are_replaced(any_pool, name):
    pool = any_pool
    blank_disk(pool, name, MIB, {"conf_rbd_cache": "true", "nova.key": "x"})
    image_id = pool.directory.image_id(name)
    pool.set_metadata(image_id, {}, conf={"conf_rbd_qos_iops_limit": "7"})
    assert pool.headers.metadata(image_id) == {
        "nova.key": "x",
        "conf_rbd_qos_iops_limit": "7",
    }
