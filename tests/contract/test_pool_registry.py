# SPDX-License-Identifier: Apache-2.0

"""The pools that disks were ever made in, as all hosts see them."""

import pytest

from nova_rbd_backend.storage import pool_registry

ADDED = ("vms-fast", "vms-slow", "ünlike any")


@pytest.fixture
def home(pool):
    yield pool
    for name in ADDED:
        pool_registry.forget(pool, name)


def test_nothing_was_added(home):
    assert pool_registry.names(home) == ()
    assert pool_registry.known(home, ["other"]) == ("vms", "other")
    assert pool_registry.missing(home, []) == ()


def test_each_is_there_once(home):
    assert pool_registry.add(home, ADDED[0], "fast")
    assert not pool_registry.add(home, ADDED[0], "another-class")
    assert pool_registry.add(home, ADDED[1], "slow")
    assert pool_registry.add(home, ADDED[2], "odd")
    assert set(pool_registry.names(home)) == set(ADDED)
    assert pool_registry.known(home, ["vms", ADDED[1], "new"])[:3] == (
        *("vms", ADDED[1], "new"),
    )
    pool_registry.forget(home, ADDED[1])
    pool_registry.forget(home, ADDED[1])
    assert set(pool_registry.names(home)) == {ADDED[0], ADDED[2]}
