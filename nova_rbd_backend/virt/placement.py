# SPDX-License-Identifier: Apache-2.0

"""What Placement is told of the pools.

DISK_GB, as Nova calls it, is the pool of the default storage class. Each other
class has a resource class of its own, CUSTOM_RBD_NAME_GB, which a flavor asks
for beside nova_rbd:class.
"""

from collections.abc import Mapping
from typing import Any

import nova.conf
from nova import context as nova_context
from nova.scheduler.client import report
from oslo_log import log as logging
from oslo_utils import units

from nova_rbd_backend import conf, storage_classes
from nova_rbd_backend.storage_classes import StorageClass
from nova_rbd_backend.virt import rbd_utils

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

_Inventory = Mapping[str, Any]


def capacity_gib(
    settings: conf.Settings, of_class: StorageClass
) -> dict[str, float]:
    """This host's share of a pool: total, free and used."""
    info = rbd_utils.in_class(of_class).get_pool_info()
    share = settings.capacity_share_percent / 100
    return {name: value * share / units.Gi for name, value in info.items()}


def add_classes(
    provider_tree: Any, nodename: str, before: Mapping[str, _Inventory]
) -> None:
    """Add the space of the other classes to what Nova has put together.

    :param before: what Placement knows until now
    """
    settings = conf.settings(CONF)
    added = _leftovers(provider_tree, nodename, before, settings)
    for each in _other_classes(settings):
        total = int(capacity_gib(settings, each)["total"])
        if total:  # Placement takes no other
            known = before.get(each.resource_class, {})
            added[each.resource_class] = _inventory(total, known)
    if added:
        inventory = provider_tree.data(nodename).inventory
        provider_tree.update_inventory(nodename, {**inventory, **added})


def _other_classes(settings: conf.Settings) -> list[StorageClass]:
    """Those whose space is not that of DISK_GB."""
    own = _space(settings.default_class)
    return [each for each in settings.classes if _space(each) != own]


def _space(of_class: StorageClass) -> str:
    return of_class.image_options.data_pool or of_class.pool


def _inventory(total: int, known: _Inventory) -> dict[str, Any]:
    reserved = known.get("reserved", 0)
    if reserved >= known.get("total", 0):
        reserved = 0  # of a class that was gone, see _leftovers
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
    settings: conf.Settings,
) -> dict[str, dict[str, Any]]:
    """What is left of classes that are gone, for as long as it is in use.

    Placement refuses to remove what is allocated, and Nova's whole update
    fails with it. Nobody gets any more of it.
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
    """Resource classes of which some is allocated; None: not known now."""
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
