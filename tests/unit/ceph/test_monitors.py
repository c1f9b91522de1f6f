# SPDX-License-Identifier: Apache-2.0

import pytest

from nova_rbd_backend.ceph import monitors
from nova_rbd_backend.ceph.monitors import MonAddress


def _mon(rank, **addresses):
    addrvec = [
        {"type": kind, "addr": addr, "nonce": 0}
        for kind, addr in addresses.items()
    ]
    return {"rank": rank, "public_addrs": {"addrvec": addrvec}}


@pytest.mark.parametrize(
    ("mon", "expected"),
    [
        (
            _mon(0, v2="10.0.0.1:3300", v1="10.0.0.1:6789"),
            MonAddress("10.0.0.1", 6789, False),
        ),
        (
            _mon(0, v2="10.0.0.1:3300"),
            MonAddress("10.0.0.1", 3300, True),
        ),
        (
            _mon(0, v2="[fd00::1]:3300"),
            MonAddress("fd00::1", 3300, True),
        ),
    ],
)
def test_address(mon, expected):
    (found,) = monitors.from_mon_dump({"mons": [mon]})
    assert found == expected


def test_all_monitors_in_rank_order():
    dump = {"mons": [_mon(n, v1=f"10.0.0.{n}:6789") for n in (2, 0, 1)]}
    found = monitors.from_mon_dump(dump)
    assert [mon.host for mon in found] == ["10.0.0.0", "10.0.0.1", "10.0.0.2"]


def test_all_addresses_of_each_monitor():
    dump = {
        "mons": [
            _mon(1, v1="10.0.0.1:6789"),
            _mon(0, v2="10.0.0.0:3300", v1="10.0.0.0:6789"),
        ]
    }
    found = monitors.all_from_mon_dump(dump)
    assert [[(each.host, each.port) for each in mon] for mon in found] == [
        [("10.0.0.0", 6789), ("10.0.0.0", 3300)],
        [("10.0.0.1", 6789)],
    ]
