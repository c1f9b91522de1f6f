# SPDX-License-Identifier: Apache-2.0

"""Checks of what needs the operator's care, though nova-compute can start.

Each check returns a line for the operator, or None.
"""

import contextlib
import datetime
import functools
import json
from collections.abc import Iterator

from nova_rbd_backend import errors, names
from nova_rbd_backend.ceph import cluster
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.checks.ceph import LOGIN, pool_step_name
from nova_rbd_backend.checks.steps import Step
from nova_rbd_backend.settings import Settings
from nova_rbd_backend.storage import journal

# Ceph warns when an OSD is at 85 % (mon_osd_nearfull_ratio).
_FULL_SHARE = 0.8
_LONGEST_DELETION = datetime.timedelta(days=1)


def steps(settings: Settings) -> Iterator[Step]:
    """Yield the checks of the cluster's health, its pools and their disks."""
    ceph = cluster.connect(settings.cluster)
    yield Step("cluster's health", lambda: _cluster(ceph), (LOGIN,))
    yield Step("tasks of Ceph's manager", lambda: _manager(ceph), (LOGIN,))
    disks = settings.classes[0].pool
    yield Step(
        "this host's clock",
        functools.partial(_clock, Pool(ceph, disks)),
        (LOGIN, pool_step_name(disks)),
    )
    spaces = [
        (each.pool, each.image_options.data_pool) for each in settings.classes
    ]
    for pool, data_pool in dict.fromkeys(spaces):
        needs = (LOGIN, pool_step_name(pool))
        probe = functools.partial(_space, ceph, pool, data_pool)
        yield Step(f"space in {data_pool or pool}", probe, needs)
    for pool in dict.fromkeys(pool for pool, _ in spaces):
        needs = (LOGIN, pool_step_name(pool))
        probe = functools.partial(_deletions, Pool(ceph, pool))
        yield Step(f"deletions in {pool}", probe, needs)
        probe = functools.partial(_lockless, Pool(ceph, pool))
        yield Step(f"locks of disks in {pool}", probe, needs)


def _cluster(ceph: cluster.Cluster) -> str | None:
    health = json.loads(ceph.mon_command("health"))
    if health["status"] == "HEALTH_OK":
        return None
    said = [each["summary"]["message"] for each in health["checks"].values()]
    return f"{health['status']}: {'; '.join(said)}: see `ceph health detail`"


def _manager(ceph: cluster.Cluster) -> str | None:
    try:
        ceph.mgr_command("rbd task list")
    except errors.StorageError as error:
        return (
            "snapshots get data of their own from this host, because Ceph's "
            f"manager takes no tasks: {error}: see `ceph health detail` for "
            "its module rbd_support"
        )
    return None


def _clock(pool: Pool) -> str | None:
    try:
        return pool.clocks().remark
    except errors.ImageNotFound:
        return None  # the pool never had an image that could be deleted
    except errors.NotSupported as error:
        return f"disks in the trash are not purged after a time: {error}"


def _space(
    ceph: cluster.Cluster, pool: str, data_pool: str | None
) -> str | None:
    capacity = ceph.capacity(pool, data_pool)
    if capacity.used_bytes < _FULL_SHARE * capacity.total_bytes:
        return None
    share = capacity.used_bytes / max(1, capacity.total_bytes)
    return (
        f"{share:.0%} of what pool {data_pool or pool!r} can hold is used: "
        "add OSDs, raise its quota, or see `nova-rbd trash list`"
    )


def _deletions(pool: Pool) -> str | None:
    now = datetime.datetime.now(datetime.UTC)
    due = {
        image.image_id
        for image in pool.trash.entries()
        if now - image.kept_until > _LONGEST_DELETION
    }
    deletions = journal.deletions(pool)
    late = [each.image for each in deletions if each.image_id in due]
    if not late:
        return None
    return (
        f"{len(late)} deleted images have not been purged for a day, such as "
        f"{late[0]}: `nova-rbd trash purge` says why"
    )


def _lockless(pool: Pool) -> str | None:
    """Return how many disks have no exclusive-lock. Asks for each disk."""
    found = []
    for name, image_id in pool.directory.ids("").items():
        # A disk may be deleted meanwhile.
        with contextlib.suppress(errors.ImageNotFound):
            if names.DiskName.parse(name) and not (
                pool.headers.has_exclusive_lock(image_id)
            ):
                found.append(name)
    if not found:
        return None
    return (
        f"{len(found)} disks have no exclusive-lock, such as {found[0]}: "
        "their guests cannot be fenced if their host is cut off. A disk gets "
        "it at the next start of its guest, or at once, also while the guest "
        f"runs, by `rbd feature enable {pool}/DISK exclusive-lock`"
    )
