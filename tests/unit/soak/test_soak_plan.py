# SPDX-License-Identifier: Apache-2.0

"""The plan of a soak follows from its seed, and has all actions and faults."""

import itertools

import pytest

from tests.soak import actions, disasters, plan

MANY = 300


def taken(source, count=MANY):
    return list(itertools.islice(source, count))


def test_same_seed_same_plan():
    for _ in range(2):
        assert taken(plan.steps(7, 0)) == taken(plan.steps(7, 0))
        assert taken(plan.faults(7, plan.CEPH_FAULTS)) == taken(
            plan.faults(7, plan.CEPH_FAULTS)
        )
    assert plan.lanes(7) == plan.lanes(7)


def test_lanes_sides_and_seeds_differ():
    assert taken(plan.steps(7, 0)) != taken(plan.steps(7, 1))
    assert taken(plan.steps(7, 0)) != taken(plan.steps(8, 0))
    ceph = taken(plan.faults(7, plan.CEPH_FAULTS))
    hosts = taken(plan.faults(7, plan.HOST_FAULTS))
    assert [f.pick for f in ceph] != [f.pick for f in hosts]


def test_three_to_five_lanes():
    assert {plan.lanes(seed) for seed in range(50)} == {3, 4, 5}


def test_each_action_comes_up_in_a_deck():
    deck = sum(plan.ACTIONS.values())
    steps = taken(plan.steps(7, 0), deck)
    assert {step.action for step in steps} == set(plan.ACTIONS)
    assert any(step.twice for step in steps)
    assert any(step.busy for step in steps)


def test_each_action_exists():
    known = set(actions.ACTIONS) | set(actions.BOOTS)
    assert set(plan.ACTIONS) == known


@pytest.mark.parametrize("kind", [*plan.CEPH_FAULTS, *plan.HOST_FAULTS])
def test_each_fault_exists(kind):
    assert callable(getattr(disasters.Disasters, kind))


def test_osds_stop_for_three_to_twenty_seconds():
    faults = taken(plan.faults(7, plan.CEPH_FAULTS))
    assert all(3 <= fault.seconds <= 20 for fault in faults)
