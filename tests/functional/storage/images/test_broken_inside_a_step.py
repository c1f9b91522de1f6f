# SPDX-License-Identifier: Apache-2.0

"""States left by a process that dies inside a step, made by hand."""

import dataclasses
import time
import uuid

import pytest

from nova_rbd_backend import names
from nova_rbd_backend.ceph import layouts
from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.disks import delete, provision
from nova_rbd_backend.storage.images import discard, draft, purge
from tests.support.blank_disks import blank_disk

MIB = 1 << 20


@pytest.fixture
def name():
    return str(names.DiskName(str(uuid.uuid4()), "disk"))


@pytest.fixture
def half_published(vms, name):
    """The entry of an image that was being published.

    The directory lists its new name, and both names can be opened.
    """
    entry = journal.begin_creation(vms, name)
    vms.create(entry.draft, MIB)
    image_id = vms.directory.image_id(entry.draft)
    with vms.open(entry.draft, read_only=False) as disk:
        disk.write(b"whole", 0)
    vms.directory._rename_listed(entry.draft, image_id, name)
    vms.directory.set_id(name, image_id)
    return entry


def is_intact(vms, name):
    with vms.open(name) as disk:
        return disk.read(0, 5) == b"whole"


def test_published_disk_survives_being_discarded_as_draft(
    vms, name, half_published
):
    discard.discard(vms, half_published.draft)
    assert is_intact(vms, name)
    assert not vms.directory.exists(half_published.draft)
    assert provision.is_whole(vms, name)


def test_published_disk_is_found_whole(vms, name, half_published):
    assert not blank_disk(vms, name, MIB).created
    assert is_intact(vms, name)
    assert not vms.directory.exists(half_published.draft)
    assert not journal.creations(vms, name)


@pytest.mark.parametrize("with_id", [False, True])
def test_disk_named_in_the_directory_is_finished(
    vms, name, half_published, with_id
):
    if not with_id:
        vms.directory.remove_id(name, vms.directory.image_id(name))
    assert provision.is_whole(vms, name)
    assert not blank_disk(vms, name, MIB).created
    assert is_intact(vms, name)


def test_published_disk_that_was_renamed_since_stays(
    vms, name, half_published
):
    image_id = vms.directory.image_id(name)
    vms.directory._rename_listed(name, image_id, f"{name}.kept")
    vms.directory.set_id(f"{name}.kept", image_id)
    vms.directory.remove_id(name, image_id)
    draft.settle(vms, half_published)
    assert is_intact(vms, f"{name}.kept")
    assert not vms.directory.exists(half_published.draft)


def test_published_disk_that_was_deleted_since_keeps_its_retention(
    vms, name, half_published
):
    image_id = vms.directory.image_id(name)
    delete.delete_disk(vms, name, retention_seconds=3600)
    assert vms.trash.get(image_id) is not None
    assert blank_disk(vms, name, MIB).created
    purge.purge(vms)
    assert vms.trash.get(image_id) is not None
    vms.trash.restore(image_id, f"{name}.back")
    delete.delete_disk(vms, f"{name}.back")


def test_id_without_image_is_no_disk(vms, name):
    vms.directory.set_id(name, "1234567890ab")
    assert not provision.is_whole(vms, name)
    assert blank_disk(vms, name, MIB).created
    assert provision.is_whole(vms, name)


def test_interrupted_move_to_the_trash_is_finished(ceph, vms, name):
    blank_disk(vms, name, MIB)
    image_id = vms.directory.image_id(name)
    entry = journal.begin_deletion(vms, name, image_id, ())
    vms.trash.move(name)
    request = layouts.begin_of_move(image_id)
    with ceph.admin() as admin, admin.open_ioctx("vms") as ioctx:
        # Set the state back from NORMAL to MOVING.
        ioctx.execute(layouts.TRASH, "rbd", "trash_state_set", request)
    assert name not in purge.purge(vms).purged
    old = dataclasses.replace(
        entry, begun_at=time.time() - 2 * discard.BUSY_LIMIT_SECONDS
    ).encoded()
    (now,) = (e for e in journal.deletions(vms) if e.image_id == image_id)
    assert vms.objects.omap_swap(
        journal.OBJECT, entry.key, now.stored, old.stored
    )
    purge.purge(vms)
    assert name in purge.purge(vms).purged
    assert vms.trash.get(image_id) is None
