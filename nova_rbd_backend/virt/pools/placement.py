# SPDX-License-Identifier: Apache-2.0

"""Report the pools' space to Placement.

Nova's DISK_GB is the space of the default storage class. Each class in another
pool has a resource class of its own, CUSTOM_RBD_NAME_GB, which a flavor asks
for beside nova_rbd:class.
"""

import contextlib
from collections.abc import Container, Mapping
from typing import Any

from nova import context as nova_context
from nova import exception
from nova.scheduler.client import report
from oslo_log import log as logging
from oslo_utils import units

from nova_rbd_backend import storage_classes
from nova_rbd_backend.storage_classes import StorageClass
from nova_rbd_backend.virt import edge

LOG = logging.getLogger(__name__)

_DISK_GB = "DISK_GB"

_Inventory = Mapping[str, Any]


def space_bytes(pool: str, of_class: StorageClass | None) -> dict[str, int]:
    """Return the usable space of a pool: total, free and used.

    :param of_class: whose data pool counts, if it has one
    """
    cluster = edge.store().cluster
    data_pool = of_class.image_options.data_pool if of_class else None
    found = edge.run(lambda: cluster.capacity(pool, data_pool))
    return {
        "total": found.total_bytes,
        "free": found.free_bytes,
        "used": found.used_bytes,
    }


def share_gib(of_class: StorageClass) -> dict[str, float]:
    """Return this host's share of a class's space: total, free and used."""
    share = edge.settings().capacity_share_percent / 100
    found = space_bytes(of_class.pool, of_class)
    return {name: value * share / units.Gi for name, value in found.items()}


def local_gib() -> dict[str, float]:
    """Return this host's share of the default class's space, at least 1 GiB.

    Nova does not report DISK_GB with a total of 0; see :func:`complete`.
    """
    found = share_gib(edge.settings().default_class)
    return {**found, "total": max(found["total"], 1.0)}


def complete(
    provider_tree: Any, nodename: str, before: Mapping[str, _Inventory]
) -> None:
    """Complete the inventory that Nova has made.

    Adds the space of the other classes. Placement accepts no total of 0. It
    refuses all of a report in which a class is missing that is in use, or in
    which more is reserved than there is. A pool that holds less than 1 GiB is
    therefore reported as 1 GiB that is reserved.

    :param before: what Placement had before
    """
    # Nova reports each minute, and the monitors have just answered. If they do
    # not any more, the report is still true.
    with contextlib.suppress(exception.StorageError):
        edge.run(edge.store().cluster.catch_up)
    inventory = provider_tree.data(nodename).inventory
    added = _other_classes(provider_tree.data(nodename).uuid, before)
    if disk := inventory.get(_DISK_GB):
        total = disk["total"]
        own = edge.settings().default_class
        is_small = total == 1 and share_gib(own)["total"] < 1
        reserved = total if is_small else min(disk["reserved"], total)
        added[_DISK_GB] = {**disk, "reserved": reserved}
    provider_tree.update_inventory(nodename, {**inventory, **added})


def _other_classes(
    provider_uuid: str, before: Mapping[str, _Inventory]
) -> dict[str, dict[str, Any]]:
    settings = edge.settings()
    own = _data_pool(settings.default_class)
    # Other classes than the default may have their data in its pool, and so
    # their space in DISK_GB.
    others = {
        each.resource_class: each
        for each in settings.classes
        if _data_pool(each) != own
    }
    added = _leftovers(provider_uuid, before, others)
    for name, each in others.items():
        total = int(share_gib(each)["total"])
        added[name] = _inventory(total, before.get(name, {}))
    return added


def _data_pool(of_class: StorageClass) -> str:
    return of_class.image_options.data_pool or of_class.pool


def _inventory(total: int, known: _Inventory) -> dict[str, Any]:
    reserved = known.get("reserved", 0)
    if reserved >= known.get("total", 0):
        # All was reserved while nova.conf did not have the class, or while
        # the pool was too small.
        reserved = 0
    if total < 1:
        total = reserved = 1
    return {
        "total": total,
        "min_unit": 1,
        "max_unit": total,
        "step_size": 1,
        # The operator sets it in Placement.
        "allocation_ratio": known.get("allocation_ratio", 1.0),
        "reserved": min(reserved, total),
    }


def _leftovers(
    provider_uuid: str,
    before: Mapping[str, _Inventory],
    configured: Container[str],
) -> dict[str, dict[str, Any]]:
    """Return the inventory of removed classes that is still in use.

    Placement refuses to remove what is allocated, and with it Nova's whole
    update. All of it is reserved, so that nothing more is allocated.
    """
    left = {
        name
        for name in before
        if storage_classes.is_resource_class(name) and name not in configured
    }
    if left and (used := _allocated(provider_uuid)) is not None:
        left &= used
    return {
        name: {**before[name], "reserved": before[name]["total"]}
        for name in left
    }


def _allocated(provider_uuid: str) -> set[str] | None:
    """Return the resource classes with allocations; None: not known now."""
    try:
        client = report.SchedulerReportClient()
        found = client.get_allocations_for_resource_provider(
            nova_context.get_admin_context(), provider_uuid
        )
    except Exception as error:
        LOG.warning("Placement does not say what is allocated: %s", error)
        return None
    return {
        name
        for consumer in found.allocations.values()
        for name in consumer["resources"]
    }
