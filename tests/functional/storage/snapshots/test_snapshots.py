# SPDX-License-Identifier: Apache-2.0

"""Snapshots on real Ceph: made, detached and deleted in any order.

Nova's user makes them in a pool for snapshots and in the disks' pool. Glance's
user deletes them as glance_store's rbd driver does.
"""

import random
import threading
import uuid

import pytest
import rbd

from nova_rbd_backend import errors, names
from nova_rbd_backend.ceph import stream
from nova_rbd_backend.ceph.image import Image
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.disks import delete, provision
from nova_rbd_backend.storage.images import discard, purge
from nova_rbd_backend.storage.snapshots import detach
from nova_rbd_backend.storage.snapshots import make as snapshots
from tests.support.blank_disks import blank_disk
from tests.support.clients import connect, over_its_quota
from tests.testbed.process import wait_for

MIB = 1 << 20
META = {"nova.instance": "it"}
CONTENT = random.Random(3).randbytes(6 * MIB)


@pytest.fixture(params=["snapshots", "vms"])
def target(ceph, request):
    """The pool for snapshots of nova.conf; by default the disks' pool."""
    return Pool(connect(ceph), request.param)


@pytest.fixture(scope="module")
def copier(ceph):
    """Who gives a snapshot data of its own."""
    return "the manager" if ceph.takes_tasks else "this host"


@pytest.fixture
def disk(vms):
    """A disk of 64 MiB with some data at its beginning and its end."""
    name = str(names.DiskName(str(uuid.uuid4()), "disk"))
    blank_disk(vms, name, 64 * MIB)
    with vms.open(name, read_only=False) as image:
        image.write(CONTENT, 0)
        image.write(b"end", 64 * MIB - 3)
    return name


@pytest.fixture(autouse=True)
def nothing_left(vms, target):
    """Delete and purge the disks; check that no image and no entry is left."""

    def there():
        found = set()
        for pool in (target, vms):  # a disk is needed by its snapshots
            purge.purge(pool)
            found |= {f"{pool}/{image}" for image in pool.directory.names("")}
            found |= {f"{pool} trash {i.name}" for i in pool.trash.entries()}
            found |= set(pool.objects.omap_get(journal.OBJECT, ""))
        return found

    before = there()
    disks = set(vms.directory.names(""))
    yield
    for name in set(vms.directory.names("")) - disks:
        if names.DiskName.parse(name):
            delete.delete_disk(vms, name)
    assert there() <= before


def make(target, vms, disk, glance_id=None):
    glance_id = glance_id or str(uuid.uuid4())
    with snapshots.sole_maker(target, glance_id):
        making = snapshots.begin(target, vms, disk, glance_id)
        snapshots.snap(making)
        return snapshots.publish(target, making, META)


def accept(target, snapshot):
    return journal.record_offer(
        target, snapshot.detachment, journal.Offer.ACCEPTED
    )


def detach_all(target):
    return [
        detach.detach(target, entry, 0)
        for entry in detach.waiting(
            target, journal.detachments(target), held_seconds=0
        )
    ]


def glance_delete(ceph, snapshot):
    """Delete a snapshot as glance_store does.

    Returns whether it was removed; otherwise it is in the trash.
    """
    ioctx = (
        connect(ceph, as_glance(snapshot))
        .connection()
        .handle.open_ioctx(snapshot.location.pool)
    )
    with rbd.Image(ioctx, snapshot.image) as image:
        image.unprotect_snap(snapshots.SNAP)
        image.remove_snap(snapshots.SNAP)
    try:
        rbd.RBD().remove(ioctx, snapshot.image)
    except rbd.ImageHasSnapshots:
        rbd.RBD().trash_move(ioctx, snapshot.image)
        return False
    return True


def as_glance(snapshot):
    """Return a user that may delete it; glance may only in pool snapshots."""
    return "glance" if snapshot.location.pool == "snapshots" else "admin"


def wait_until_undone(target):
    """Wait until nothing is left of an interrupted attempt."""
    wait_for(
        "the attempt is undone",
        lambda: purge.purge(target) and not journal.creations(target),
        60,
        1,
    )


def snaps_of(vms, disk):
    with vms.open(disk) as image:
        return image.snaps()


def content(pool, name, snap=None):
    with pool.open(name, snap=snap) as image:
        return image.read(0, len(CONTENT)), image.size_bytes()


def test_is_whole_and_the_guest_writes_on(ceph, vms, target, disk):
    with vms.open(disk, read_only=False) as guest:
        guest.write(CONTENT[:1], 0)  # acquires the exclusive lock
        snapshot = make(target, vms, disk)
        guest.write(b"later", 0)
        guest.flush()
        assert content(target, snapshot.image, "snap") == (CONTENT, 64 * MIB)
        assert guest.read(0, 5) == b"later"
    fsid = connect(ceph).fsid()
    assert snapshot.location.url == (
        f"rbd://{fsid}/{target}/{snapshot.image}/snap"
    )
    with target.open(snapshot.image) as image:
        assert image.metadata().items() >= META.items()
    snapshots.remove(target, snapshot.detachment)
    purge.purge(target)
    assert snaps_of(vms, disk) == ()


@pytest.mark.quick
def test_detached_snapshot_needs_no_disk(vms, target, disk, copier):
    snapshot = make(target, vms, disk)
    accept(target, snapshot)
    (done,) = detach_all(target)
    assert done.by == copier
    assert snaps_of(vms, disk) == ()
    with target.open(snapshot.image) as image:
        assert image.parent() is None
        assert [snap.name for snap in image.snaps()] == ["snap"]
    delete.delete_disk(vms, disk)
    assert disk in purge.purge(vms).purged
    assert content(target, snapshot.image, "snap") == (CONTENT, 64 * MIB)
    assert detach_all(target) == []
    discard.discard(target, snapshot.image)


def test_disk_deleted_first(ceph, vms, target, disk):
    snapshot = make(target, vms, disk)
    accept(target, snapshot)
    delete.delete_disk(vms, disk)
    report = purge.purge(vms)
    assert disk not in report.purged
    (kept,) = [kept for kept in report.waiting if kept.image == disk]
    assert snapshot.image in kept.reason
    assert report.stuck == ()
    detach_all(target)
    assert disk in purge.purge(vms).purged
    assert content(target, snapshot.image, "snap") == (CONTENT, 64 * MIB)
    assert glance_delete(ceph, snapshot)


def test_snapshot_deleted_before_it_is_detached(ceph, vms, target, disk):
    snapshot = make(target, vms, disk)
    accept(target, snapshot)
    assert not glance_delete(ceph, snapshot)
    (done,) = detach_all(target)
    assert done.by == "nobody"
    assert snapshot.image in purge.purge(target).purged
    assert snaps_of(vms, disk) == ()


def test_snapshot_deleted_while_another_client_has_it_open(
    ceph, vms, target, disk
):
    """Glance never gets a conflict, not even right after it was made."""
    snapshot = make(target, vms, disk)
    with target.open(snapshot.image, read_only=False):
        assert not glance_delete(ceph, snapshot)
    snapshots.remove(target, snapshot.detachment)
    assert snapshot.image in purge.purge(target).purged


def test_snapshot_deleted_while_it_is_detached(
    ceph, vms, target, disk, monkeypatch
):
    """Glance gets no conflict while the detachment has the image open."""
    snapshot = make(target, vms, disk)
    entry = accept(target, snapshot)
    monkeypatch.setattr(detach, "_copied_by_manager", lambda *_: False)
    holding = threading.Event()
    deleted = threading.Event()
    flatten = Image.flatten

    def slowly(image):
        holding.set()
        assert deleted.wait(30)
        flatten(image)

    monkeypatch.setattr(Image, "flatten", slowly)
    thread = threading.Thread(target=detach.detach, args=(target, entry, 0))
    thread.start()
    assert holding.wait(30)
    # Another client than Glance has the image open for writing now.
    removed = glance_delete(ceph, snapshot)
    deleted.set()
    thread.join(60)
    assert not thread.is_alive()
    assert not removed
    assert snapshot.image in purge.purge(target).purged


@pytest.mark.parametrize("detached", [True, False])
def test_booted_from_and_deleted_in_glance(ceph, vms, target, disk, detached):
    """A disk booted from a snapshot keeps it, and the disk below it."""
    snapshot = make(target, vms, disk)
    accept(target, snapshot)
    second = str(names.DiskName(str(uuid.uuid4()), "disk"))
    provision.clone_disk(vms, second, snapshot.location)
    if detached:
        detach_all(target)
    assert not glance_delete(ceph, snapshot)
    delete.delete_disk(vms, disk)
    detach_all(target)
    for pool in (vms, target):
        report = purge.purge(pool)
        assert report.stuck == ()
        assert snapshot.image not in report.purged
    assert content(vms, second)[0] == CONTENT
    delete.delete_disk(vms, second)
    purged = []
    for pool in (vms, target, vms):
        purged += purge.purge(pool).purged
    assert {second, snapshot.image} <= set(purged)


def test_new_snapshot_is_held_for_a_while(ceph, vms, target, disk, copier):
    """A new snapshot is held, so that Glance can delete it at any moment."""
    snapshot = make(target, vms, disk)
    entry = accept(target, snapshot)
    assert detach.detach(target, entry).by == copier
    assert snaps_of(vms, disk) == ()
    assert detach.waiting(target, journal.detachments(target)) == []
    assert detach.awaits_release(target)
    with target.open(snapshot.image, read_only=False):
        assert not glance_delete(ceph, snapshot)
    assert not detach.awaits_release(target)
    (done,) = detach_all(target)
    assert done.by == detach.NOBODY
    assert snapshot.image in purge.purge(target).purged


def test_without_the_manager(ceph, vms, target, disk):
    """This host copies if the manager is down or refuses Nova's user."""
    snapshot = make(target, vms, disk)
    entry = accept(target, snapshot)
    here = connect(ceph)
    ask = here.mgr_command

    def refuse(*_, **__):
        raise errors.NotPermitted(operation="ask")

    here.mgr_command = refuse
    try:
        assert detach.detach(target, entry, 0).by == "this host"
    finally:
        here.mgr_command = ask
    with target.open(snapshot.image) as image:
        assert image.parent() is None
    discard.discard(target, snapshot.image)


def test_accepted_by_glance_since_the_entry_was_read(vms, target, disk):
    """A stale entry does not get a snapshot removed as abandoned."""
    snapshot = make(target, vms, disk)
    (old,) = detach.abandoned(target, journal.detachments(target))
    accept(target, snapshot)
    assert not detach.remove_unknown(target, old)
    assert content(target, snapshot.image, "snap") == (CONTENT, 64 * MIB)
    detach_all(target)
    discard.discard(target, snapshot.image)


def test_offered_to_glance_and_deleted(ceph, vms, target, disk):
    """Nova had Glance delete it, but its maker never learned of it."""
    snapshot = make(target, vms, disk)
    entry = journal.record_offer(
        target, snapshot.detachment, journal.Offer.UNDER_WAY
    )
    assert detach.may_be_known(target, entry)
    assert not glance_delete(ceph, snapshot)
    (entry,) = detach.abandoned(target, journal.detachments(target))
    assert not detach.may_be_known(target, entry)
    assert detach.remove_unknown(target, entry)
    assert snapshot.image in purge.purge(target).purged
    assert snaps_of(vms, disk) == ()


def test_detaching_that_failed_is_tried_again(
    vms, target, disk, monkeypatch, copier
):
    """The claim that could not be given back does not stop its own process."""
    snapshot = make(target, vms, disk)
    entry = accept(target, snapshot)

    def fail(*_, **__):
        raise errors.OperationTimedOut(operation="flatten")

    with monkeypatch.context() as broken:
        broken.setattr(detach, "_copy", fail)
        broken.setattr(journal, "_replaced", once(journal._replaced, fail))
        with pytest.raises(errors.OperationTimedOut):
            detach.detach(target, entry, 0)
    assert not any(map(journal.is_claimed, journal.detachments(target)))
    (done,) = detach_all(target)
    assert done.by == copier
    discard.discard(target, snapshot.image)


def once(first, then):
    """Return a function that passes its first call to ``first``.

    It passes later calls to ``then``.
    """
    calls = []

    def call(*args, **kwargs):
        calls.append(args)
        return (first if len(calls) == 1 else then)(*args, **kwargs)

    return call


def test_reads_as_a_file_and_only_what_is_allocated(
    vms, target, disk, monkeypatch
):
    snapshot = make(target, vms, disk)
    reader = stream.ImageReader(
        lambda: target.open(image_id=snapshot.image_id)
    )
    lengths = []

    def read(image, offset, length, read=Image.read):
        lengths.append(length)
        return read(image, offset, length)

    monkeypatch.setattr(Image, "read", read)
    pieces = []
    while piece := reader.read(100_000):
        pieces.append(piece)
    data = b"".join(pieces)
    expected = CONTENT + bytes(58 * MIB - 3) + b"end"
    assert data == expected
    assert lengths == 3 * [4 * MIB]  # three objects hold data
    snapshots.remove(target, snapshot.detachment)


def test_no_room_for_it(ceph, vms, target, disk):
    """A full pool gives an error in time, and nothing is left afterwards."""
    glance_id = str(uuid.uuid4())
    hasty = connect(ceph, operation_timeout_seconds=5)
    with ceph.admin() as admin, over_its_quota(admin, target):
        hasty.connection().handle.wait_for_latest_osdmap()
        with pytest.raises(errors.OperationTimedOut) as caught:
            make(Pool(hasty, str(target)), Pool(hasty, "vms"), disk, glance_id)
        print(f"\n{caught.value}")
    wait_until_undone(target)
    assert snaps_of(vms, disk) == ()
