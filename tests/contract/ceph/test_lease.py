# SPDX-License-Identifier: Apache-2.0

"""An exclusive right that a pool keeps, and that expires."""

import time
import uuid

import pytest

from nova_rbd_backend import errors
from nova_rbd_backend.ceph import lease


@pytest.fixture
def key():
    return f"a-lease.{uuid.uuid4()}"


def test_lease_has_one_holder(pool, key):
    assert pool.objects.leases(key) == []
    assert pool.objects.lease(key, "it", "one", 30, "me")
    assert not pool.objects.lease(key, "it", "other", 30, "me")
    assert pool.objects.lease(key, "another", "other", 30, "me")
    assert pool.objects.lease(key, "it", "one", 30, "me")  # renewed
    assert sorted(pool.objects.leases(key)) == ["another", "it"]
    assert not pool.objects.end_lease(key, "it", "other")
    assert pool.objects.end_lease(key, "it", "one")
    assert not pool.objects.end_lease(key, "it", "one")
    assert pool.objects.leases(key) == ["another"]
    assert pool.objects.lease(key, "it", "other", 30, "me")
    assert pool.objects.end_lease(key, "it", "other")


def test_lease_expires(pool, key):
    assert pool.objects.lease(key, "it", "dead", 1, "me")
    assert not pool.objects.lease(key, "it", "next", 30, "me")
    limit = time.monotonic() + 10
    while not pool.objects.lease(key, "it", "next", 30, "me"):
        assert time.monotonic() < limit, "the lease did not end"
        time.sleep(0.1)
    assert not pool.objects.end_lease(key, "it", "dead")
    assert pool.objects.end_lease(key, "it", "next")


def test_lease_is_renewed_while_its_holder_lives(pool, key, monkeypatch):
    monkeypatch.setattr(lease, "SECONDS", 2)
    held = lease.take(pool, key)
    taken = lease._taken

    def fail_once(*_):
        monkeypatch.setattr(lease, "_taken", taken)
        raise errors.OperationTimedOut

    monkeypatch.setattr(lease, "_taken", fail_once)
    limit = time.monotonic() + 1.5
    while lease._taken is not taken:
        assert time.monotonic() < limit, "it is not renewed in time"
        time.sleep(0.05)
    until = time.monotonic() + 3
    while time.monotonic() < until:
        assert lease.take(pool, key) is None
        time.sleep(0.2)
    held.end()
    held.end()
    again = lease.take(pool, key)
    assert again is not None
    again.end()


def test_holder_learns_that_its_lease_is_lost(pool, key, monkeypatch):
    monkeypatch.setattr(lease, "SECONDS", 1)
    held = lease.take(pool, key)
    assert not held.lost
    # As if Ceph had been unreachable for longer than the lease lasts.
    assert pool.objects.end_lease(
        lease.OBJECT, key, held.cookie, held.connection
    )
    other = lease.take(pool, key)
    limit = time.monotonic() + 10
    while not held.lost:
        assert time.monotonic() < limit, "the holder did not notice"
        time.sleep(0.05)
    held.end()
    assert lease.take(pool, key) is None
    other.end()


def test_turn(pool, key):
    with lease.turn(pool, key, 60) as mine:
        assert mine.complete
        with lease.turn(pool, key, 60) as other:
            assert other is None
        mine.complete = False
    # A part is left.
    with lease.turn(pool, key, 2) as mine:
        assert mine
    with lease.turn(pool, key, 2) as other:
        assert other is None
    limit = time.monotonic() + 10
    while True:
        with lease.turn(pool, key, 60) as next_period:
            if next_period:
                break
        assert time.monotonic() < limit, "the period did not end"
        time.sleep(0.1)


def test_turn_that_fails_is_given_to_another(pool, key):
    with pytest.raises(errors.Conflict), lease.turn(pool, key, 60):
        raise errors.Conflict
    with lease.turn(pool, key, 60) as mine:
        assert mine


def test_leases_of_dead_holders_are_removed(pool, key):
    alive = lease.take(pool, f"{key}-alive")
    assert pool.objects.lease(lease.OBJECT, f"{key}-dead", "dead", 1, "me")
    limit = time.monotonic() + 10
    while f"{key}-dead" in pool.objects.leases(lease.OBJECT):
        assert time.monotonic() < limit, "the lease was not removed"
        lease.remove_dead(pool, key)
        time.sleep(0.1)
    assert f"{key}-alive" in pool.objects.leases(lease.OBJECT)
    alive.end()
