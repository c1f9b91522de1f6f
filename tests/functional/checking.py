# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

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
