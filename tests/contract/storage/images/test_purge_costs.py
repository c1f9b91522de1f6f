# SPDX-License-Identifier: Apache-2.0

"""How many requests a purge takes for what it cannot free yet."""

import datetime
import uuid

import pytest
import rbd

from nova_rbd_backend import names
from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.images import discard, purge
from nova_rbd_backend.storage.process import Process
from tests.support.clusters import client_requests
from tests.support.many import (
    remove_clones,
    write_clones,
    write_entries,
    write_trashed,
)

MIB = 1 << 20
HOUR = 3600
KEPT, HELD = 10000, 5
# Of a purge of an empty pool: the journal's entries of each kind, the trash.
FEW = 8
# Entries of the journal and of the trash that one request reads.
JOURNAL_PAGE, TRASH_PAGE = 500, 512


@pytest.fixture
def pool(ceph, pool):
    """A namespace, which has nothing of other tests."""
    name = str(uuid.uuid4())
    with ceph.admin() as admin, admin.open_ioctx(pool.name) as ioctx:
        rbd.RBD().namespace_create(ioctx, name)
    return pool.beside(pool.name, name)


@pytest.fixture
def cost(ceph, pool):
    """Return a function that purges; returns requests, writes, the report."""
    with ceph.admin() as admin:

        def counts():
            return [client_requests(ceph, admin, op) for op in ("op", "op_w")]

        def cost(flow=purge.purge):
            before = counts()
            report = flow(pool)
            after = counts()
            return *map(int.__sub__, after, before), report

        yield cost


@pytest.fixture
def kept(pool, disk):
    """Delete disks that are kept for an hour; the first one exists."""
    name, image_id = disk
    discard.discard(pool, name, retention_seconds=HOUR)
    others = [f"deadbeef{number:05d}" for number in range(KEPT - 1)]
    write_trashed(pool, image_id, others)
    entries = [
        journal._stamped("delete", name, image_id=other) for other in others
    ]
    stored = {entry.key: entry.stored.encode() for entry in entries}
    write_entries(pool, journal.OBJECT, stored)
    return image_id


@pytest.fixture
def disk(pool):
    """Name and id of a disk."""
    name = str(names.DiskName(str(uuid.uuid4()), "disk"))
    pool.create(name, MIB)
    return name, pool.directory.image_id(name)


@pytest.fixture
def held(pool):
    """Delete bases of which there are clones."""
    found = {}
    for _ in range(HELD):
        name = f"{names.BASE_PREFIX}{uuid.uuid4()}"
        pool.create(name, MIB)
        image_id = pool.directory.image_id(name)
        with pool.open(name, read_only=False) as image:
            image.create_snap("base")
        write_clones(pool, image_id, ["c10e"])
        discard.discard(pool, name)
        found[name] = image_id
    return found


def test_kept_images_cost_no_request_each(pool, kept, cost):
    requests, writes, report = cost()
    assert len(report.waiting) == KEPT
    assert requests <= KEPT / JOURNAL_PAGE + KEPT / TRASH_PAGE + FEW
    assert writes == 0


def test_kept_images_of_a_dead_process_cost_no_request_each(
    pool, kept, cost, monkeypatch
):
    """A host that is started again looks at what it had deleted."""
    monkeypatch.setattr(Process, "may_live", lambda _process: False)
    requests, writes, report = cost(purge.purge_own)
    assert len(report.waiting) == KEPT
    assert requests <= KEPT / JOURNAL_PAGE + KEPT / TRASH_PAGE + FEW
    assert writes == 0
    requests, writes, report = cost(purge.purge_own)
    assert (requests, writes, report.waiting) == (1, 0, ())


@pytest.mark.parametrize("others", ["restored", "freed"])
def test_kept_image_that_an_operator_took_out_of_the_trash(
    pool, kept, cost, others, monkeypatch
):
    """By rbd; its entry ends with the next purge."""
    monkeypatch.setattr(purge, "_LONGEST_MOVE_SECONDS", 0.0)
    name = pool.trash.get(kept).name
    if others == "restored":
        pool.trash.restore(kept, name)
    else:
        pool.trash.remove(kept, force=True)
    _, _, report = cost()
    assert report.purged == ((name,) if others == "freed" else ())
    assert len(report.waiting) == KEPT - (others == "freed")
    assert journal.deletion(pool, kept) is None
    is_disk = pool.directory.image_id(name) == kept
    assert is_disk == (others == "restored")


def test_image_that_is_due_earlier_than_its_neighbours(pool, kept, cost, disk):
    """An operator may move it to the trash again, for another time."""
    name, image_id = disk
    pool.trash.restore(image_id, name)
    pool.trash.move(name)
    _, _, report = cost()
    assert report.purged == (name,)


def test_image_that_is_to_be_kept_since_the_trash_was_listed(
    pool, disk, cost, monkeypatch
):
    """It was restored, and deleted again, while others were freed."""
    name, image_id = disk
    discard.discard(pool, name)
    list_trash = pool.trash.entries

    def listed_before():
        found = list_trash()
        pool.trash.restore(image_id, name)
        pool.trash.move(name, HOUR)
        return found

    monkeypatch.setattr(pool.trash, "entries", listed_before)
    _, _, report = cost()
    assert (report.purged, len(report.waiting)) == ((), 1)
    left = pool.trash.get(image_id).kept_until - datetime.datetime.now(
        datetime.UTC
    )
    assert left > datetime.timedelta(minutes=50)


def test_image_with_clones_is_only_read(pool, held, cost):
    requests, writes, report = cost()
    assert {kept.image for kept in report.waiting} == held.keys()
    assert requests <= 2 * HELD + FEW
    assert writes == 0
    for image_id in held.values():
        remove_clones(pool, image_id)
    _, _, report = cost()
    assert set(report.purged) == held.keys()
