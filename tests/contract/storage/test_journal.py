# SPDX-License-Identifier: Apache-2.0

"""Entries of the journal that another process changes meanwhile."""

import dataclasses
import time

import pytest

from nova_rbd_backend import errors
from nova_rbd_backend.storage import journal, process

ASKING = journal.Offer.UNDER_WAY


@pytest.fixture
def entry(pool, instance):
    """The detachment of a snapshot that was not offered to Glance yet."""
    creation = journal.begin_creation(pool, f"snapshot_{instance}")
    journal.end(pool, creation)
    entry = journal.begin_detachment(pool, creation, "1f")
    yield entry
    for left in entries_now(pool, entry):
        journal.end(pool, left)


def entries_now(pool, entry):
    """Return the entry as it is now; other tests' entries are left out."""
    return [
        each for each in journal.detachments(pool) if each.key == entry.key
    ]


def test_offer_is_noted_though_the_first_answer_was_lost(pool, entry):
    noted = journal.record_offer(pool, entry, ASKING)
    assert journal.record_offer(pool, entry, ASKING) == noted
    assert entries_now(pool, entry) == [noted]
    # A process that read the entry earlier can note an offer, too.
    accepted = journal.record_offer(pool, entry, journal.Offer.ACCEPTED)
    assert entries_now(pool, entry) == [accepted]


def test_no_offer_of_a_snapshot_that_another_process_removes(pool, entry):
    claimed = dataclasses.replace(
        entry,
        claim=str(process.Process("elsewhere", 1, "a.b.3.4")),
        claimed_until=time.time() + 60,
    ).encoded()
    assert pool.objects.omap_swap(
        journal.OBJECT, entry.key, entry.stored, claimed.stored
    )
    with pytest.raises(errors.Conflict, match="another process removes it"):
        journal.record_offer(pool, entry, ASKING)
    journal.end(pool, claimed)
    with pytest.raises(errors.Conflict, match="or has done so"):
        journal.record_offer(pool, entry, ASKING)


def test_claim_is_given_back_if_the_entry_cannot_be_ended(
    pool, entry, monkeypatch
):
    def fail(*_):
        raise errors.OperationTimedOut

    def work():
        with journal.claimed(pool, entry, 60) as claim:
            claim.finish()

    with monkeypatch.context() as patch:
        patch.setattr(journal, "end", fail)
        with pytest.raises(errors.OperationTimedOut):
            work()
    assert entries_now(pool, entry) == [entry]


@pytest.fixture
def spawned(pool, instance):
    """Return a function for the instance's entry, or None."""

    def entry():
        found = [e for e in journal.spawns(pool) if e.image == instance]
        return found[0] if found else None

    yield entry
    if left := entry():
        journal.end(pool, left)


def test_spawn_elsewhere_replaces_the_one_before(pool, instance, spawned):
    first = journal.begin_spawn(pool, instance, "host1")
    second = journal.begin_spawn(pool, instance, "host2")
    assert spawned() == second
    # The first process lives, and comes to its end.
    journal.end(pool, first)
    assert spawned() == second
    journal.end(pool, second)
    assert spawned() is None


def test_spawn_is_abandoned_when_nobody_is_at_it(pool, instance, spawned):
    with journal.sole_maker(pool, instance):
        entry = journal.begin_spawn(pool, instance, "host1")
        assert not journal.is_abandoned(pool, entry)
    assert journal.is_abandoned(pool, entry)
    elsewhere = dataclasses.replace(entry, host="elsewhere")
    assert not journal.is_abandoned(pool, elsewhere)
