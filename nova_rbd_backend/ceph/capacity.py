# SPDX-License-Identifier: Apache-2.0

"""How much a pool can hold: what its data protection and quota leave."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from nova_rbd_backend import errors


@dataclasses.dataclass(frozen=True)
class Capacity:
    """Bytes as a user of the pool sees them, copies not counted."""

    total_bytes: int
    used_bytes: int
    free_bytes: int


def _of_pool(df: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    for pool in df["pools"]:
        if pool["name"] == name:
            return dict(pool["stats"])
    raise errors.PoolNotFound(operation="capacity", pool=name)


def _free_bytes(stats: Mapping[str, Any]) -> int:
    # max_avail is divided by the copies or the EC overhead already, and is
    # what the fullest OSD leaves below full_ratio (mon/PGMap.cc, 16.2).
    free = int(stats["max_avail"])
    quota = int(stats.get("quota_bytes", 0))
    if quota:
        free = min(free, quota - int(stats["stored"]))
    return max(free, 0)


def from_df(
    df: Mapping[str, Any], pool: str, data_pool: str | None = None
) -> Capacity:
    """Read the answer of the monitors' ``df detail``.

    :param data_pool: where the images' data goes, when not into ``pool``
    :raises PoolNotFound: the cluster has no such pool
    """
    stats = _of_pool(df, pool)
    used = int(stats["stored"])
    free = _free_bytes(stats)
    if data_pool and data_pool != pool:
        # The head pool then holds a few KiB an image; space for disks is
        # what the data pool has.
        stats = _of_pool(df, data_pool)
        used += int(stats["stored"])
        free = _free_bytes(stats)
    return Capacity(used + free, used, free)
