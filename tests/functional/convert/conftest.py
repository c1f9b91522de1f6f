# SPDX-License-Identifier: Apache-2.0

"""An instance whose local disks are to be converted."""

import pytest

from nova_rbd_backend.storage.disks import delete
from nova_rbd_backend.storage.images import purge
from tests.functional.convert.local_instance import LocalInstance
from tests.support.guest_domain import SECRET


@pytest.fixture
def local(ceph, vms, compute_host, tmp_path):
    """An instance without disks; its disks in Ceph are deleted afterwards."""
    compute_host.set_secret(SECRET, "nova", ceph.key("nova"))
    made = LocalInstance(tmp_path, ceph, compute_host)
    yield made
    made.remove()
    delete.delete_disks(vms, made.uuid)
    purge.purge(vms)
