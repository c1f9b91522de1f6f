# SPDX-License-Identifier: Apache-2.0

"""A cluster, and settings that pass all checks on it."""

import uuid

import pytest

from tests.support.checking import settings_of
from tests.support.clusters import started_ceph


@pytest.fixture(scope="module")
def ceph():
    """A cluster for these tests only, as they count the images in it."""
    with started_ceph(watch_timeout_seconds=10) as cluster:
        yield cluster


@pytest.fixture
def secret_uuid():
    """A new UUID for each test, as no test can undefine its secret.

    virSecretUndefine crashes in an embedded driver (libvirt 9.0, segmentation
    fault).
    """
    return str(uuid.uuid4())


@pytest.fixture
def good(ceph, secret_uuid):
    return settings_of(ceph, secret_uuid=secret_uuid)
