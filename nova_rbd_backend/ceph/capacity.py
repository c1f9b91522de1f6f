# SPDX-License-Identifier: Apache-2.0

"""How much a pool can hold, given its data protection and quota."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from nova_rbd_backend import errors


@dataclasses.dataclass(frozen=True)
class Capacity:
    """Bytes as a user of the pool sees them, without copies."""

    total_bytes: int
    used_bytes: int
    free_bytes: int


def from_df(
    df: Mapping[str, Any], pool: str, data_pool: str | None = None
) -> Capacity:
    """Return the capacity of a pool from the answer of ``df detail``.

    :param data_pool: where the images' data goes, if not into ``pool``
    :raises PoolNotFound: the cluster has no such pool
    """
    names = {pool, data_pool or pool}
    stats = {
        each["name"]: each["stats"]
        for each in df["pools"]
        if each["name"] in names
    }
    for missing in names - stats.keys():
        raise errors.PoolNotFound(operation="capacity", pool=missing)
    used = sum(int(each["stored"]) for each in stats.values())
    # If there is a data pool, the pool itself holds only a few KiB for each
    # image, and the space for disks is in the data pool.
    free = _free_bytes(stats[data_pool or pool])
    return Capacity(used + free, used, free)


def _free_bytes(stats: Mapping[str, Any]) -> int:
    # Ceph has divided max_avail by the number of copies or the EC overhead,
    # and limits it to what the fullest OSD has left below full_ratio
    # (mon/PGMap.cc, 16.2).
    free = int(stats["max_avail"])
    quota = int(stats.get("quota_bytes", 0))
    if quota:
        free = min(free, quota - int(stats["stored"]))
    return max(free, 0)
