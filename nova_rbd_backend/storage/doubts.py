# SPDX-License-Identifier: Apache-2.0

"""What keeps no nova-compute from starting, and wants a look.

Each returns a line for the operator; None: there is nothing to say.
"""

import datetime
import json

from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.cluster import Cluster
from nova_rbd_backend.storage.pool import Pool

# Ceph warns when an OSD is at 85 % (mon_osd_nearfull_ratio).
_FULL_SHARE = 0.8
_LONGEST_DELETION = datetime.timedelta(days=1)


def of_cluster(ceph: Cluster) -> str | None:
    """What the monitors complain of."""
    health = json.loads(ceph.mon_command("health"))
    if health["status"] == "HEALTH_OK":
        return None
    said = [each["summary"]["message"] for each in health["checks"].values()]
    return f"{health['status']}: {'; '.join(said)}: see `ceph health detail`"


def of_space(
    ceph: Cluster, pool: str, data_pool: str | None = None
) -> str | None:
    """Whether a pool is nearly full."""
    capacity = ceph.capacity(pool, data_pool)
    if capacity.used_bytes < _FULL_SHARE * capacity.total_bytes:
        return None
    share = capacity.used_bytes / max(1, capacity.total_bytes)
    return (
        f"{share:.0%} of what pool {data_pool or pool!r} can hold is used: "
        "add OSDs, raise its quota, or see `nova-rbd trash list`"
    )


def of_deletions(pool: Pool) -> str | None:
    """Whether deleted images keep their space for longer than they should."""
    now = datetime.datetime.now(datetime.UTC)
    due = {
        image.image_id
        for image in pool.trash_list()
        if now - image.kept_until > _LONGEST_DELETION
    }
    late = [
        entry.image
        for entry in journal.deletions(pool)
        if entry.image_id in due
    ]
    if not late:
        return None
    return (
        f"{len(late)} deleted images have not been freed for a day, such as "
        f"{late[0]}: `nova-rbd trash purge` says why"
    )
