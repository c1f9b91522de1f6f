# SPDX-License-Identifier: Apache-2.0

"""A cluster, and settings that suit it."""

import uuid

import pytest

from tests.support.checking import settings_of
from tests.support.clusters import started_ceph


@pytest.fixture(scope="module")
def ceph():
    """A cluster of its own: what it has in its pools is counted."""
    with started_ceph() as cluster:
        yield cluster


@pytest.fixture
def secret_uuid():
    """Another one for each test: undefining in an embedded driver crashes.

    (libvirt 9.0, virSecretUndefine, segmentation fault.)
    """
    return str(uuid.uuid4())


@pytest.fixture
def good(ceph, secret_uuid):
    return settings_of(ceph, secret_uuid=secret_uuid)
