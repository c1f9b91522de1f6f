# SPDX-License-Identifier: Apache-2.0

"""Age out unused bases as the options of Nova's image cache say."""

import nova.conf
from oslo_log import log as logging

from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage.bases import age
from nova_rbd_backend.virt import edge
from nova_rbd_backend.virt.background import lasting, turns
from nova_rbd_backend.virt.background.purger import PURGER
from nova_rbd_backend.virt.background.worker import Background

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)
_STATES = lasting.States()


def _age_once() -> bool:
    """Age the bases of all pools; leave failures to the next period."""
    cache = CONF.image_cache
    unused_seconds: int | None = None
    if cache.remove_unused_base_images:
        unused_seconds = cache.remove_unused_original_minimum_age_seconds
    turn_seconds = turns.seconds()
    try:
        with _STATES.run():
            store = edge.store()
            edge.run(store.read_pools)
            for name in store.pool_names():
                _try_to_age(store.pool(name), unused_seconds, turn_seconds)
    except Exception as error:
        text = "Unused bases were not aged: %s"
        _STATES.tell("", str(error), LOG.error, text, error)
    return True


def _try_to_age(
    pool: Pool, unused_seconds: int | None, period_seconds: int
) -> None:
    try:
        _age(pool, unused_seconds, period_seconds)
    except Exception as error:
        _STATES.keep()
        text = "Unused bases of pool %s were not aged: %s"
        _STATES.tell(str(pool), str(error), LOG.error, text, pool, error)


def _age(pool: Pool, unused_seconds: int | None, period_seconds: int) -> None:
    found = edge.run(
        lambda: age.age(pool, unused_seconds, period_seconds), long=True
    )
    if found is None:
        _STATES.keep()
        return
    for why in found.failed:
        _STATES.tell(why, "", LOG.warning, "A base was not aged: %s", why)
    if found.removed or found.undone:
        LOG.info(
            "Removed unused bases from pool %(pool)s: %(removed)s; undid half "
            "made bases of dead hosts: %(undone)s; left: %(in_use)d in use, "
            "%(kept)d unused",
            {
                "pool": pool,
                "removed": ", ".join(found.removed) or "none",
                "undone": ", ".join(found.undone) or "none",
                "in_use": found.in_use,
                "kept": found.kept,
            },
        )
        PURGER.start()


#: The ager of this nova-compute.
AGER = Background(_age_once)
