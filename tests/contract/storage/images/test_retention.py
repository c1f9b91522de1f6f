# SPDX-License-Identifier: Apache-2.0

"""The trash keeps an image for its retention, whatever a host's clock says."""

import datetime

import pytest

from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.disks import delete
from nova_rbd_backend.storage.images import purge
from tests.support.clients import connect, make_user
from tests.support.shifted_clock import Clock

MIB = 1 << 20
DAY = 24 * 3600
WEEK = 7 * DAY


@pytest.fixture
def disk(pool, instance, name):
    """The name and id of a disk."""
    pool.create(name, MIB)
    image_id = pool.directory.image_id(name)
    yield name, image_id
    purge.purge_one(pool, name, image_id, force=True)
    assert pool.trash.get(image_id) is None
    assert journal.deletion(pool, image_id) is None


def test_host_ahead_frees_nothing_that_is_to_be_kept(
    ceph, pool, instance, disk, tmp_path
):
    name, image_id = disk
    delete.delete_disks(pool, instance, retention_seconds=DAY)
    report = Clock(tmp_path, WEEK).run("purge", ceph)
    assert pool.trash.get(image_id) is not None
    (reason,) = (
        each["reason"] for each in report["waiting"] if each["image"] == name
    )
    assert f"{WEEK} s ahead of the cluster's" in reason
    assert f"{WEEK} s ahead of the cluster's" in report["clock"]


def test_host_ahead_frees_what_is_due(ceph, pool, instance, disk, tmp_path):
    name, image_id = disk
    delete.delete_disks(pool, instance)
    report = Clock(tmp_path, WEEK).run("purge", ceph)
    assert name in report["purged"]
    assert pool.trash.get(image_id) is None


def test_host_behind_keeps_what_it_deletes(
    ceph, pool, instance, disk, tmp_path
):
    name, image_id = disk
    Clock(tmp_path, -WEEK).run("delete", ceph, instance, DAY)
    left = pool.trash.get(image_id).kept_until - datetime.datetime.now(
        datetime.UTC
    )
    assert datetime.timedelta(hours=23) < left < datetime.timedelta(hours=25)
    report = purge.purge(pool)
    assert name not in report.purged
    assert report.clock is None
    assert pool.trash.get(image_id) is not None


def test_host_behind_is_told_so(ceph, pool, instance, disk, tmp_path):
    delete.delete_disks(pool, instance, retention_seconds=DAY)
    report = Clock(tmp_path, -WEEK).run("purge", ceph)
    assert f"{WEEK} s behind the cluster's" in report["clock"]


def test_nothing_is_freed_early_if_the_clock_cannot_be_checked(
    ceph, pool, instance, disk, tmp_path
):
    """A user whose caps do not allow the class that tells the time."""
    name, image_id = disk
    user = make_user(
        ceph,
        "noclock",
        mon="profile rbd",
        osd="allow rw pool=vms, allow class rbd, allow class lock",
    )
    with_caps = Pool(connect(ceph, user), "vms")
    delete.delete_disks(with_caps, instance, retention_seconds=DAY)
    report = Clock(tmp_path, WEEK).run("purge", ceph, user=user)
    assert name not in report["purged"]
    assert "do not tell their time" in report["clock"]
    assert pool.trash.get(image_id) is not None
