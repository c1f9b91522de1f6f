# SPDX-License-Identifier: Apache-2.0

"""Age out the pools' unused bases, by the settings of Nova's image cache."""

import nova.conf
from oslo_log import log as logging

from nova_rbd_backend.virt import base_pool
from nova_rbd_backend.virt.background import Background
from nova_rbd_backend.virt.purger import PURGER

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

# Of Nova's periodic task when its interval is 0 (oslo.service).
_SHORTEST_PERIOD_SECONDS = 60
# So that the host whose turn it was is not late for its own next period.
_OF_PERIOD = 0.9


def _age_once() -> bool:
    """Age the bases of all pools; what fails is for the next period."""
    cache = CONF.image_cache
    unused_seconds: int | None = None
    if cache.remove_unused_base_images:
        unused_seconds = cache.remove_unused_original_minimum_age_seconds
    period = max(_SHORTEST_PERIOD_SECONDS, cache.manager_interval)
    try:
        pools = base_pool.BasePool().read_pools()
    except Exception as error:
        LOG.error("Unused bases were not aged: %s", error)
        return True
    for pool in pools:
        _age(pool, unused_seconds, int(period * _OF_PERIOD))
    return True


def _age(pool: str, unused_seconds: int | None, period_seconds: int) -> None:
    try:
        found = base_pool.BasePool(pool=pool).age(
            unused_seconds, period_seconds
        )
    except Exception as error:
        LOG.error("Unused bases of pool %s were not aged: %s", pool, error)
        return
    if found is None:
        return
    for why in found.failed:
        LOG.warning("A base was not aged: %s", why)
    if found.removed or found.undone:
        LOG.info(
            "Removed unused bases from pool %(pool)s: %(removed)s; undone, "
            "half made by dead hosts: %(undone)s; left: %(in_use)d in use, "
            "%(kept)d not",
            {
                "pool": pool,
                "removed": ", ".join(found.removed) or "none",
                "undone": ", ".join(found.undone) or "none",
                "in_use": found.in_use,
                "kept": found.kept,
            },
        )
        PURGER.start()


#: The one of this nova-compute.
AGER = Background(_age_once)
