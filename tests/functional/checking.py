# SPDX-License-Identifier: Apache-2.0

"""What the checks of a host make and leave, for their tests."""

import pytest
import rbd

from nova_rbd_backend import errors
from nova_rbd_backend.storage import health


def secret_xml(secret_uuid):
    """A libvirt secret for a Ceph key."""
    return (
        f"<secret private='no'><uuid>{secret_uuid}</uuid>"
        f"<usage type='ceph'><name>{secret_uuid}</name></usage></secret>"
    )


def probes(ceph, pool):
    """Images that the checks have left in a pool."""
    with ceph.admin() as admin, admin.open_ioctx(pool) as ioctx:
        names = rbd.RBD().list(ioctx)
    return [name for name in names if name.startswith(health.PROBE_PREFIX)]


def refusal(settings, kind=errors.ConfigError):
    """The one line that stops nova-compute."""
    with pytest.raises(kind) as caught:
        health.check(settings)
    line = str(caught.value)
    assert "\n" not in line
    return line
