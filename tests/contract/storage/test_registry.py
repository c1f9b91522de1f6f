# SPDX-License-Identifier: Apache-2.0

"""The pools that disks were ever made in, as all hosts see them."""

import pytest

from nova_rbd_backend.storage import registry

ADDED = ("vms-fast", "vms-slow", "ünlike any")


@pytest.fixture
def home(pool):
    yield pool
    for name in ADDED:
        registry.remove(pool, name)


def test_registry_is_empty_at_first(home):
    assert registry.names(home) == ()
    assert registry.missing(home, []) == ()


def test_each_pool_is_registered_once(home):
    assert registry.add(home, ADDED[0], "fast")
    assert not registry.add(home, ADDED[0], "another-class")
    assert registry.add(home, ADDED[1], "slow")
    assert registry.add(home, ADDED[2], "odd")
    assert set(registry.names(home)) == set(ADDED)
    assert registry.missing(home, ADDED) == ()
    registry.remove(home, ADDED[1])
    registry.remove(home, ADDED[1])
    assert set(registry.names(home)) == {ADDED[0], ADDED[2]}
