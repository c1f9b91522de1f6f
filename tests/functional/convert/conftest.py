# SPDX-License-Identifier: Apache-2.0

"""An instance whose local disks are to be converted."""

import pytest

from nova_rbd_backend.storage.disks import delete
from nova_rbd_backend.storage.images import purge
from tests.functional.convert.local_instance import LocalInstance
from tests.support.guest_domain import SECRET


@pytest.fixture
def new_local(ceph, vms, compute_host, tmp_path):
    """Return a function that makes instances without disks.

    Their disks in Ceph are deleted afterwards.
    """
    compute_host.set_secret(SECRET, "nova", ceph.key("nova"))
    made = []

    def make():
        folder = tmp_path / f"host-of-{len(made)}"
        made.append(LocalInstance(folder, ceph, compute_host))
        return made[-1]

    yield make
    for each in made:
        each.remove()
        delete.delete_disks(vms, each.uuid)
    purge.purge(vms)


@pytest.fixture
def local(new_local):
    """An instance without disks."""
    return new_local()
