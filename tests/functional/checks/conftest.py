# SPDX-License-Identifier: Apache-2.0

"""A cluster, and settings that suit it."""

import uuid

import pytest

from nova_rbd_backend import conf as options
from nova_rbd_backend.image_options import ImageOptions
from tests.clusters import started_ceph


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
    return options.Settings(
        images_type="rbd",
        pool="vms",
        snapshot_pool="snapshots",
        image_options=ImageOptions(data_pool="vms-data"),
        user="nova",
        secret_uuid=secret_uuid,
        ceph_conf=str(ceph.conf),
        connect_timeout_seconds=5,
        operation_timeout_seconds=10,
        trash_retention_seconds=0,
        blocklist_seconds=3600,
        import_workers=4,
        import_at_once=2,
        detach_at_once=2,
        clone_depth_soft_limit=4,
        clone_depth_hard_limit=8,
    )
