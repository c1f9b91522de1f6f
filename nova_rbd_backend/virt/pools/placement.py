# SPDX-License-Identifier: Apache-2.0

"""What Placement is told about the pools.

Nova's DISK_GB is the pool of the default storage class. Each other class has a
resource class of its own, CUSTOM_RBD_NAME_GB, which a flavor asks for beside
nova_rbd:class.
"""

from collections.abc import Mapping
from typing import Any

from nova import context as nova_context
from nova.scheduler.client import report
from oslo_log import log as logging
from oslo_utils import units

from nova_rbd_backend import storage_classes
from nova_rbd_backend.settings import Settings
from nova_rbd_backend.storage_classes import StorageClass
from nova_rbd_backend.virt import edge

LOG = logging.getLogger(__name__)

_Inventory = Mapping[str, Any]


def space(pool: str, of_class: StorageClass | None) -> dict[str, int]:
    """Return the usable bytes of a pool: total, free and used.

    :param of_class: where its data is; None: in the pool
    """
    cluster = edge.store().cluster
    data_pool = of_class.image_options.data_pool if of_class else None
    found = edge.run(lambda: cluster.capacity(pool, data_pool))
    return {
        "total": found.total_bytes,
        "free": found.free_bytes,
        "used": found.used_bytes,
    }


def capacity_gib(
    settings: Settings, of_class: StorageClass
) -> dict[str, float]:
    """Return this host's share of a pool: total, free and used."""
    info = space(of_class.pool, of_class)
    share = settings.capacity_share_percent / 100
    return {name: value * share / units.Gi for name, value in info.items()}


def add_classes(
    provider_tree: Any, nodename: str, before: Mapping[str, _Inventory]
) -> None:
    """Add the space of the other classes to what Nova has put together.

    :param before: what Placement knows so far
    """
    settings = edge.settings()
    added = _leftovers(provider_tree, nodename, before, settings)
    for each in _other_classes(settings):
        total = int(capacity_gib(settings, each)["total"])
        if total:  # Placement takes no other
            known = before.get(each.resource_class, {})
            added[each.resource_class] = _inventory(total, known)
    if added:
        inventory = provider_tree.data(nodename).inventory
        provider_tree.update_inventory(nodename, {**inventory, **added})


def _other_classes(settings: Settings) -> list[StorageClass]:
    """Return the classes whose space is not that of DISK_GB."""
    own = _space(settings.default_class)
    return [each for each in settings.classes if _space(each) != own]


def _space(of_class: StorageClass) -> str:
    return of_class.image_options.data_pool or of_class.pool


def _inventory(total: int, known: _Inventory) -> dict[str, Any]:
    reserved = known.get("reserved", 0)
    if reserved >= known.get("total", 0):
        reserved = 0  # of a class that had been removed, see _leftovers
    return {
        "total": total,
        "min_unit": 1,
        "max_unit": total,
        "step_size": 1,
        # Set by the operator, in Placement.
        "allocation_ratio": known.get("allocation_ratio", 1.0),
        "reserved": min(reserved, total),
    }


def _leftovers(
    provider_tree: Any,
    nodename: str,
    before: Mapping[str, _Inventory],
    settings: Settings,
) -> dict[str, dict[str, Any]]:
    """Return the inventory of removed classes that is still in use.

    Placement refuses to remove what is allocated, and Nova's whole update
    fails with it. All of it is reserved, so that nobody gets any more.
    """
    now = {each.resource_class for each in _other_classes(settings)}
    left = {
        name: known
        for name, known in before.items()
        if storage_classes.is_resource_class(name) and name not in now
    }
    if left:
        used = _allocated(provider_tree.data(nodename).uuid)
        if used is not None:
            left = {name: left[name] for name in left if name in used}
    return {
        name: {**known, "reserved": known["total"]}
        for name, known in left.items()
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
