# SPDX-License-Identifier: Apache-2.0

"""An idle nova-compute, after one of its pools was full."""

import uuid

import pytest

from nova_rbd_backend import errors
from nova_rbd_backend.ceph import cluster
from tests.nova.images import MIB
from tests.support.clients import is_full, set_quota
from tests.testbed.ceph import pools as pools_
from tests.testbed.process import wait_for

# librados reads forty maps at a time.
MAPS = 120
# librados looks for late requests each 5 s; these ones wait 15 s and more.
SECONDS = 8


@pytest.fixture
def tree():
    """Return what Nova knows of Placement's providers, with this host."""
    from nova.compute import provider_tree

    known = provider_tree.ProviderTree()
    known.new_root("host", str(uuid.uuid4()))
    return known


def _full_after_many_maps(admin, pool):
    for number in range(MAPS):
        pools_.command(
            admin,
            "osd blocklist",
            blocklistop="add",
            addr=f"192.0.2.1:0/{number + 2}",
        )
    set_quota(admin, pool, 1)
    wait_for("the quota is in force", lambda: is_full(admin, pool), 30)
    set_quota(admin, pool, 0)
    wait_for("the quota is gone", lambda: not is_full(admin, pool), 30)


def test_first_request_does_not_wait(ceph, driver, pools, tree):
    """The report that Nova makes each minute has read the maps."""
    from nova_rbd_backend.virt import edge

    pools.conf(group="nova_rbd", operation_timeout_seconds=SECONDS)
    vms = edge.store().pool("vms")
    vms.create(f"{uuid.uuid4()}_disk", MIB)
    with ceph.admin() as admin:
        _full_after_many_maps(admin, vms)
    driver.update_provider_tree(tree, "host")
    vms.create(f"{uuid.uuid4()}_disk", MIB)


def test_report_stands_without_the_newest_map(driver, tree, monkeypatch):
    def unreachable(_self):
        raise errors.ClusterUnreachable("no monitor answers", operation="ask")

    monkeypatch.setattr(cluster.Cluster, "catch_up", unreachable)
    driver.update_provider_tree(tree, "host")
    assert tree.data("host").inventory["DISK_GB"]["total"] > 0
