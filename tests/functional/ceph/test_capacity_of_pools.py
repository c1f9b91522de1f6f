# SPDX-License-Identifier: Apache-2.0

"""The capacity of a pool, as the monitors report it."""

import pytest

from nova_rbd_backend import errors
from tests.support.clients import set_quota

MIB = 1 << 20


def test_capacity(ceph, vms):
    found = vms.cluster.capacity("vms")
    assert found.total_bytes == found.used_bytes + found.free_bytes
    ec = vms.cluster.capacity("vms", "vms-data")
    # Erasure coding with 2 + 1 chunks, against one copy on the same OSDs.
    assert ec.free_bytes / found.free_bytes == pytest.approx(2 / 3, rel=0.02)
    with ceph.admin() as admin:
        totals = []
        # The quota leaves room for what other tests have left in the pool;
        # otherwise nothing could be written until it is lifted.
        for value in (100 * MIB + found.used_bytes, 0):
            set_quota(admin, "vms", value, field="max_bytes")
            totals.append(vms.cluster.capacity("vms").total_bytes)
    assert totals[0] <= 100 * MIB + found.used_bytes < totals[1]
    with pytest.raises(errors.PoolNotFound):
        vms.cluster.capacity("nope")
