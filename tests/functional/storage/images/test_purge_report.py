# SPDX-License-Identifier: Apache-2.0

"""What a purge reports of images that it could not free, and why."""

import dataclasses
import uuid

import pytest

from nova_rbd_backend import names
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.image_options import ImageOptions
from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.bases import make as bases
from nova_rbd_backend.storage.disks import delete, provision
from nova_rbd_backend.storage.images import discard, purge
from tests.support.clients import connect, make_user

MIB = 1 << 20
DAY = 24 * 3600


@pytest.fixture(autouse=True)
def nothing_before(vms, disks_deleted):
    """Free what earlier tests have left."""
    purge.purge(vms)


def _of(kept, image):
    return [each for each in kept if each.image == image]


def _changed(pool, entry, **facts):
    """Change an entry in the pool, and return it."""
    changed = dataclasses.replace(entry, **facts).encoded()
    assert pool.objects.omap_swap(
        journal.OBJECT, entry.key, entry.stored, changed.stored
    )
    return changed


@pytest.fixture
def made_elsewhere(vms, instance):
    """The entry of a disk that another host is making."""
    entry = journal.begin_creation(vms, f"{instance}_disk")
    vms.create(entry.draft, MIB)
    return _changed(vms, entry, host="elsewhere")


def test_creation_of_less_than_a_day_is_not_reported(vms, made_elsewhere):
    _changed(vms, made_elsewhere, begun_at=made_elsewhere.begun_at - DAY + 60)
    assert _of(purge.purge(vms).stuck, made_elsewhere.draft) == []
    assert vms.directory.exists(made_elsewhere.draft)


def test_creation_of_more_than_a_day_is_reported(vms, made_elsewhere):
    _changed(vms, made_elsewhere, begun_at=made_elsewhere.begun_at - DAY - 1)
    (kept,) = _of(purge.purge(vms).stuck, made_elsewhere.draft)
    assert kept.image_id == ""
    assert kept.age_seconds > DAY
    assert kept.reason.startswith("elsewhere may still be making")
    assert vms.directory.exists(made_elsewhere.draft)


@pytest.fixture
def not_to_be_undone(vms, parent):
    """The entry of a snapshot whose source our user may only read."""
    images = vms.beside("images")
    disk_id = images.directory.image_id(parent.image)
    source = journal.Source("images", disk_id, parent.snap)
    entry = journal.begin_creation(vms, f"snapshot_{uuid.uuid4()}", source)
    yield entry
    journal.end(vms, entry)


def test_draft_that_may_not_be_undone_is_reported(
    vms, instance, not_to_be_undone
):
    """Deleted images are freed nevertheless."""
    disk = f"{instance}_disk"
    vms.create(disk, MIB)
    delete.delete_disks(vms, instance)
    report = purge.purge(vms)
    (kept,) = _of(report.stuck, not_to_be_undone.draft)
    assert kept.image_id == ""
    assert "permission" in kept.reason
    assert report.purged == (disk,)
    assert not_to_be_undone in journal.creations(vms)


def test_image_that_may_not_be_freed_is_reported(ceph, vms, instance):
    striped = Pool(
        vms.cluster, "vms", options=ImageOptions(data_pool="vms-data")
    )
    disk = f"{instance}_disk"
    striped.create(disk, 8 * MIB)
    with striped.open(disk, read_only=False) as image:
        image.write(b"data", 0)
    delete.delete_disks(vms, instance)
    user = make_user(
        ceph, "nodata", mon="profile rbd", osd="profile rbd pool=vms"
    )
    report = purge.purge(Pool(connect(ceph, user), "vms"))
    (kept,) = _of(report.stuck, disk)
    assert "permission" in kept.reason
    assert disk not in report.purged
    assert purge.purge(vms).purged == (disk,)


def test_image_that_is_left_at_a_limit_is_not_waiting(vms, instance, tmp_path):
    """Its clone was freed in the same run, so that the next one frees it."""
    path = tmp_path / "raw"
    path.write_bytes(b"base".ljust(MIB))
    base, disk = names.base_image(str(uuid.uuid4()), ""), f"{instance}_disk"
    bases.finish(vms, bases.begin(vms, base), str(path), {})
    provision.clone_disk(vms, disk, bases.snap(vms, base))
    discard.discard(vms, base)
    delete.delete_disks(vms, instance)
    report = purge.purge(vms, max_images=1)
    assert report.purged == (disk,)
    assert (report.left, _of(report.waiting, base)) == (1, [])
    assert purge.purge(vms).purged == (base,)
