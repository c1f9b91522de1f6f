# SPDX-License-Identifier: Apache-2.0

"""A check may die at any step; a later one removes what it has left."""

import datetime

import pytest

from nova_rbd_backend.checks import ceph as ceph_
from tests.support import storage_child
from tests.support.checking import probes, require
from tests.support.clusters import wait_for_dead_clients

# A pool gets these with its first image, clone or trashed image.
KEPT = {"rbd_directory", "rbd_info", "rbd_children", "rbd_trash"}


def _objects(ceph):
    with ceph.admin() as admin, admin.open_ioctx("vms") as ioctx:
        return {entry.key for entry in ioctx.list_objects()}


@pytest.mark.timeout(600)
def test_each_step(forks, ceph, good, monkeypatch):
    before = _objects(ceph)
    monkeypatch.setattr(ceph_, "_LONGEST_CHECK", datetime.timedelta(0))

    killed = storage_child.kill_at_each_step(
        *(forks, ceph, "compare", lambda: (ceph_.probe_name(), ""))
    )

    wait_for_dead_clients(ceph, "vms")
    require(good)
    print(f"\ncheck: {len(killed)} steps")
    assert probes(ceph, "vms") == []
    assert {
        key
        for key in _objects(ceph) - before - KEPT
        if not key.startswith("nova_rbd")
    } == set()
