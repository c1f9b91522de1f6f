# SPDX-License-Identifier: Apache-2.0

"""Give a new cluster its OSD ids and pools, over one admin connection."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import rados
import rbd

from tests.testbed.process import TestbedError, wait_for

REPLICATED_POOLS = ("images", "vms", "snapshots", "volumes")
DATA_POOL = "vms-data"


def command(cluster: rados.Rados, prefix: str, **arguments: object) -> Any:
    """Return the decoded JSON answer of a monitor command; None if empty.

    :raises TestbedError: the monitor refused; names command and reason
    """
    request = {"prefix": prefix, "format": "json", **arguments}
    code, out, reason = cluster.mon_command(json.dumps(request), b"")
    if code:
        raise TestbedError(f"ceph {prefix} {arguments}: {code} {reason}")
    return json.loads(out) if out.strip() else None


def register_osds(cluster: rados.Rados, uuids: Mapping[int, str]) -> None:
    for number, uuid in uuids.items():
        command(cluster, "osd new", uuid=uuid, id=number)


def make_pools(cluster: rados.Rados, erasure_coded: bool) -> None:
    """Make all pools, and if asked the erasure-coded pool vms-data."""
    # Clones of unprotected snaps (clone v2) need it.
    command(cluster, "osd set-require-min-compat-client", version="mimic")
    for pool in REPLICATED_POOLS:
        command(cluster, "osd pool create", pool=pool, pg_num=8)
    if erasure_coded:
        _make_data_pool(cluster)
    for pool in REPLICATED_POOLS:
        with cluster.open_ioctx(pool) as ioctx:
            rbd.RBD().pool_init(ioctx, True)


def _make_data_pool(cluster: rados.Rados) -> None:
    profile = ["k=2", "m=1", "crush-failure-domain=osd", "plugin=jerasure"]
    command(
        cluster, "osd erasure-code-profile set", name="ec21", profile=profile
    )
    command(
        cluster,
        "osd pool create",
        pool=DATA_POOL,
        pg_num=8,
        pool_type="erasure",
        erasure_code_profile="ec21",
    )
    overwrites = {"var": "allow_ec_overwrites", "val": "true"}
    command(cluster, "osd pool set", pool=DATA_POOL, **overwrites)
    command(cluster, "osd pool application enable", pool=DATA_POOL, app="rbd")


def wait_for_osds(
    cluster: rados.Rados, numbers: Iterable[int], after_epoch: int = 0
) -> None:
    """Wait until these OSDs have come up in a map later than after_epoch."""
    wanted = set(numbers)

    def all_up() -> bool:
        up = {
            osd["osd"]
            for osd in command(cluster, "osd dump")["osds"]
            if osd["up"] and osd["up_from"] > after_epoch
        }
        return wanted <= up

    wait_for(f"OSDs {sorted(wanted)} are up", all_up, 60, 0.05)


def wait_until_usable(cluster: rados.Rados) -> None:
    """Wait until placement groups are clean and clients see a capacity."""
    waits = {
        "the mgr is active": lambda: command(cluster, "mgr stat")["available"],
        "all PGs are active+clean": lambda: _all_clean(cluster),
        "the capacity is known": lambda: command(cluster, "df")["stats"][
            "total_bytes"
        ],
    }
    for what, predicate in waits.items():
        wait_for(what, predicate, 60, 0.05)


def _all_clean(cluster: rados.Rados) -> bool:
    summary = command(cluster, "pg stat")["pg_summary"]
    states = {state["name"] for state in summary["num_pg_by_state"]}
    return summary["num_pgs"] > 0 and states == {"active+clean"}
