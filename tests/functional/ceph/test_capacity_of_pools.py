# SPDX-License-Identifier: Apache-2.0

"""What a pool can hold, as the monitors count it."""

import json

import pytest

from nova_rbd_backend import errors

MIB = 1 << 20


def test_capacity(ceph, vms):
    found = vms.cluster.capacity("vms")
    assert found.total_bytes == found.used_bytes + found.free_bytes
    ec = vms.cluster.capacity("vms", "vms-data")
    # 2 + 1 against one copy of the same OSDs
    assert ec.free_bytes / found.free_bytes == pytest.approx(2 / 3, rel=0.02)
    quota = {"prefix": "osd pool set-quota", "pool": "vms"}
    quota["field"] = "max_bytes"
    with ceph.admin() as admin:
        totals = []
        # What other tests left is below the quota, or nothing could be
        # written until it is lifted.
        for value in (100 * MIB + found.used_bytes, 0):
            command = json.dumps(quota | {"val": str(value)})
            assert admin.mon_command(command, b"")[0] == 0
            totals.append(vms.cluster.capacity("vms").total_bytes)
    assert totals[0] <= 100 * MIB + found.used_bytes < totals[1]
    with pytest.raises(errors.PoolNotFound):
        vms.cluster.capacity("nope")
