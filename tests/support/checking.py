# SPDX-License-Identifier: Apache-2.0

"""Run the checks of a host in tests, and find the images they leave behind."""

import pytest
import rbd

from nova_rbd_backend import errors
from nova_rbd_backend.checks import ceph as ceph_
from nova_rbd_backend.checks import steps
from nova_rbd_backend.image_options import ImageOptions
from nova_rbd_backend.settings import Settings


def settings_of(ceph, **changed):
    """Return settings that pass all checks on a cluster.

    :param changed: settings that replace these
    """
    good = {
        "images_type": "rbd",
        "pool": "vms",
        "snapshot_pool": "snapshots",
        "image_options": ImageOptions(data_pool="vms-data"),
        "user": "nova",
        "secret_uuid": None,
        "ceph_conf": str(ceph.conf),
        "connect_timeout_seconds": 5,
        "operation_timeout_seconds": 10,
        "trash_retention_seconds": 0,
        "blocklist_seconds": 3600,
        "import_workers": 4,
        "import_at_once": 2,
        "detach_at_once": 2,
        "clone_depth_soft_limit": 4,
        "clone_depth_hard_limit": 8,
    }
    return Settings(**good | changed)


def secret_xml(secret_uuid, private="no"):
    """Return the XML of a libvirt secret for a Ceph key."""
    return (
        f"<secret private='{private}'><uuid>{secret_uuid}</uuid>"
        f"<usage type='ceph'><name>{secret_uuid}</name></usage></secret>"
    )


def doubts(settings):
    """Run the checks of the cluster as nova-compute does when it starts."""
    return steps.require(ceph_.steps(settings))


def require(settings):
    """Do the same; nothing is in doubt."""
    assert doubts(settings) == []


def probes(ceph, pool):
    """Return the names of the trial images that the checks left in a pool."""
    with ceph.admin() as admin, admin.open_ioctx(pool) as ioctx:
        names = rbd.RBD().list(ioctx)
    return [name for name in names if name.startswith(ceph_.PROBE_PREFIX)]


def refusal(settings, kind=errors.ConfigError):
    """Return the one-line error with which nova-compute refuses to start."""
    with pytest.raises(kind) as caught:
        require(settings)
    line = str(caught.value)
    assert "\n" not in line
    return line
