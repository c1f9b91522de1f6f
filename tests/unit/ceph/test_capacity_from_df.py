# SPDX-License-Identifier: Apache-2.0

import pytest

from nova_rbd_backend import errors
from nova_rbd_backend.ceph import capacity
from nova_rbd_backend.ceph.capacity import Capacity

GIB = 1 << 30


def _df(**pools):
    return {
        "pools": [
            {
                "name": name,
                "stats": {
                    "stored": stored,
                    "max_avail": max_avail,
                    "quota_bytes": quota,
                },
            }
            for name, (stored, max_avail, quota) in pools.items()
        ]
    }


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        ((10, 90, 0), Capacity(100, 10, 90)),
        ((10, 90, 50), Capacity(50, 10, 40)),
        ((10, 20, 50), Capacity(30, 10, 20)),
        # over its quota
        ((60, 90, 50), Capacity(60, 60, 0)),
        # full
        ((60, 0, 0), Capacity(60, 60, 0)),
    ],
)
def test_replicated(pool, expected):
    assert capacity.from_df(_df(vms=pool), "vms") == expected


def test_available_space_is_that_of_the_data_pool():
    df = _df(vms=(1, 90, 0), ec=(10, 60, 0))
    assert capacity.from_df(df, "vms", "ec") == Capacity(71, 11, 60)


@pytest.mark.parametrize("names", [("nope", None), ("vms", "nope")])
def test_missing_pool(names):
    with pytest.raises(errors.PoolNotFound) as caught:
        capacity.from_df(_df(vms=(1, 2, 0)), *names)
    assert caught.value.pool == "nope"
