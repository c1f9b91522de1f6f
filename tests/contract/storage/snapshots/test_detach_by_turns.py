# SPDX-License-Identifier: Apache-2.0

"""Each host detaches its own snapshots; one host looks at those of all."""

import uuid

import pytest

from nova_rbd_backend import names
from nova_rbd_backend.ceph import lease
from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.process import Process
from nova_rbd_backend.storage.snapshots import detach
from nova_rbd_backend.storage.snapshots import make as snapshots
from tests.support.many import write_entries
from tests.testbed.process import wait_for

MIB = 1 << 20
PERIOD_SECONDS = 600
BACKLOG = 5000


@pytest.fixture
def backlog(host):
    """A host that has many snapshots to detach."""
    owner = host()
    entries = [
        journal._stamped(
            "detach",
            names.snapshot_image(str(uuid.uuid4())),
            image_id=f"deadbeef{number:05d}",
            offer=journal.Offer.ACCEPTED,
        )
        for number in range(BACKLOG)
    ]
    stored = {entry.key: entry.stored.encode() for entry in entries}
    write_entries(owner, journal.OBJECT, stored)
    return owner


def _accepted(pool):
    """Make a snapshot that Glance has accepted; return its entry."""
    disk = str(names.DiskName(str(uuid.uuid4()), "disk"))
    pool.create(disk, MIB)
    glance_id = str(uuid.uuid4())
    with snapshots.sole_maker(pool, glance_id):
        making = snapshots.begin(pool, pool, disk, glance_id)
        snapshots.snap(making)
        entry = snapshots.publish(pool, making, {}).detachment
    return journal.record_offer(pool, entry, journal.Offer.ACCEPTED)


def _look(pool):
    return detach.look_by_turns(pool, PERIOD_SECONDS)


def test_one_host_in_a_period_looks_at_all(host, backlog, requests):
    count, look = requests(lambda: _look(backlog))
    assert (len(look.entries), look.is_whole) == (BACKLOG, True)
    assert count <= BACKLOG / 500 + 3  # the lease is taken, and kept
    other = host()
    _look(other)  # the first time it looks for its dead processes
    count, look = requests(lambda: _look(other))
    assert (count, look.entries, look.is_whole) == (0, [], False)


def test_host_that_waits_for_a_slot_reads_its_own_snapshots(
    host, backlog, requests
):
    """However many wait, and whatever takes so long."""
    other = host()
    _look(backlog)
    _look(other)
    own = _accepted(other)
    with detach.slot(backlog, 2) as mine, detach.slot(backlog, 2) as second:
        assert mine
        assert second

        def look_and_wait():
            look = _look(other)
            waiting = detach.waiting(other, look.entries, held_seconds=0)
            with detach.slot(other, 2) as has_slot:
                return waiting, has_slot

        count, found = requests(look_and_wait)
        assert found == ([own], False)
        assert count <= 1  # its entry
    with detach.slot(other, 2) as has_slot:
        assert has_slot
        assert detach.detach(other, own, held_seconds=0).by != detach.NOBODY
    assert _look(other).entries == []


def test_slot_of_a_dead_host_is_given_to_another(host):
    dead, other = host(), host()
    slot = (f"{detach._TURN}-0", "its lease", 1, "dead host")
    assert dead.objects.lease(lease.OBJECT, *slot)

    def has_slot():
        with detach.slot(other, 1) as taken:
            return taken

    assert not has_slot()
    wait_for("the lease has ended", has_slot, 20, 0.2)


def test_restarted_host_finds_its_snapshots(
    host, backlog, requests, monkeypatch
):
    restarted = host()
    _look(backlog)
    monkeypatch.setattr(Process, "may_live", lambda _process: False)
    # First it takes the right to search for them, and gives it back.
    for others in (4, 2):
        count, look = requests(lambda: _look(restarted))
        assert (len(look.entries), look.is_whole) == (BACKLOG, False)
        assert count <= BACKLOG / 500 + others
