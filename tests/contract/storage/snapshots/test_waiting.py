# SPDX-License-Identifier: Apache-2.0

"""Which snapshots are detached: those that Glance has accepted."""

import dataclasses
import uuid

import pytest

from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.images import purge
from nova_rbd_backend.storage.snapshots import detach
from nova_rbd_backend.storage.snapshots import make as snapshots
from tests.support.old_images import make_old
from tests.support.shifted_clock import Clock

DAY = 24 * 3600


@pytest.fixture
def made(pool, name):
    """The entry of a snapshot that Glance has not answered for."""
    pool.create(name, 8 << 20)
    glance_id = str(uuid.uuid4())
    with snapshots.sole_maker(pool, glance_id):
        making = snapshots.begin(pool, pool, name, glance_id)
        snapshots.snap(making)
        entry = snapshots.publish(pool, making, {}).detachment
    yield entry
    snapshots.remove(pool, entry)
    purge.purge(pool)
    pool.remove(name)


def waiting(pool):
    return [
        each.image
        for each in detach.waiting(
            pool, journal.detachments(pool), held_seconds=0
        )
    ]


def test_snapshot_waits_once_glance_has_accepted_it(pool, made):
    assert made.image not in waiting(pool)
    for offer in (journal.Offer.UNDER_WAY, journal.Offer.ACCEPTED):
        journal.record_offer(pool, made, offer)
        accepted = offer is journal.Offer.ACCEPTED
        assert (made.image in waiting(pool)) is accepted


def test_snapshot_that_a_process_detaches_waits_for_no_other(pool, made):
    entry = journal.record_offer(pool, made, journal.Offer.ACCEPTED)
    with journal.claimed(pool, entry, 60) as claim:
        assert claim is not None
        assert made.image not in waiting(pool)
    assert made.image in waiting(pool)


@pytest.fixture
def made_elsewhere(pool, made):
    """Return a function that makes the entry that of another host."""
    entries = [made]

    def change(seconds_ago):
        entry = dataclasses.replace(
            made, host="elsewhere", begun_at=made.begun_at - seconds_ago
        ).encoded()
        assert pool.objects.omap_swap(
            journal.OBJECT, entry.key, entries[-1].stored, entry.stored
        )
        entries.append(entry)

    yield change
    journal.end(pool, entries[-1])


def abandoned(pool):
    return [
        entry.image
        for entry in detach.abandoned(pool, journal.detachments(pool))
    ]


def test_maker_on_another_host_is_dead_after_a_day(pool, made, made_elsewhere):
    made_elsewhere(2 * DAY)
    assert made.image not in abandoned(pool), "its maker's clock is behind"
    make_old(pool, made.image_id, 2 * DAY)
    assert made.image in abandoned(pool)


def test_maker_on_another_host_is_not_dead_for_a_host_ahead(
    ceph, pool, made, made_elsewhere, tmp_path
):
    made_elsewhere(60)
    found = Clock(tmp_path, 2 * DAY).run("abandoned", ceph)
    assert made.image not in found
