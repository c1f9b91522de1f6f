# SPDX-License-Identifier: Apache-2.0

"""The fake has what the real classes have, with the same parameters."""

import inspect

import pytest

from nova_rbd_backend.ceph import (
    directory,
    headers,
    holders,
    image,
    objects,
    pool,
    trash,
)
from tests.contract.fake.directory import FakeDirectory
from tests.contract.fake.headers import FakeHeaders
from tests.contract.fake.holders import FakeHolders
from tests.contract.fake.image import FakeImage
from tests.contract.fake.objects import FakeObjects
from tests.contract.fake.pool import FakePool
from tests.contract.fake.trash import FakeTrash

PAIRS = [
    (pool.Pool, FakePool),
    (directory.Directory, FakeDirectory),
    (headers.Headers, FakeHeaders),
    (holders.Holders, FakeHolders),
    (image.Image, FakeImage),
    (objects.Objects, FakeObjects),
    (trash.Trash, FakeTrash),
]
# Methods that no flow in this suite calls.
NOT_FAKED = {
    "Directory": {"namespaces", "remove_id", "remove_listed"},
    "Image": {"set_conf", "used_bytes"},
}


def _public(kind):
    return {
        name: found
        for name, found in vars(kind).items()
        if not name.startswith("_")
    }


@pytest.mark.parametrize(
    ("real", "fake"), PAIRS, ids=[real.__name__ for real, _ in PAIRS]
)
def test_same_methods_with_the_same_parameters(real, fake):
    expected, found = _public(real), _public(fake)
    left_out = NOT_FAKED.get(real.__name__, set())
    assert set(expected) - set(found) == left_out
    assert set(found) <= set(expected)
    for name in found:
        assert _parameters(found[name]) == _parameters(expected[name]), name


def _parameters(method):
    if isinstance(method, property):
        return None
    parameters = inspect.signature(method).parameters.values()
    return [(each.name, each.kind, each.default) for each in parameters]


def test_pools_have_the_same_constructor():
    real, fake = pool.Pool.__init__, FakePool.__init__
    assert _parameters(fake) == _parameters(real)
