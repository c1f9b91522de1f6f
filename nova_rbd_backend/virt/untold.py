# SPDX-License-Identifier: Apache-2.0

"""What native threads leave to be logged, since they may not log."""

from oslo_log import log as logging

from nova_rbd_backend.storage import fencing, striping

LOG = logging.getLogger(__name__)


def tell() -> None:
    """Log what storage has found out since the last time."""
    _tell_fenced()
    _tell_coarser()


def _tell_fenced() -> None:
    while fencing.untold:
        fact = fencing.untold.popleft()
        LOG.warning(
            "Fenced a dead client of %(pool)s/%(image)s: client.%(id)d at "
            "%(address)s cannot write for %(days).1f days%(lock)s",
            {
                "pool": fact.pool,
                "image": fact.image,
                "id": fact.client_id,
                "address": fact.address,
                "days": fact.blocklist_seconds / 86400,
                "lock": ", its lock is broken" if fact.lock_broken else "",
            },
        )


def _tell_coarser() -> None:
    while striping.untold:
        fact = striping.untold.popleft()
        LOG.info(
            "Clones in %(pool)s of images in %(parent_pool)s with %(parent)s "
            "get %(given)s: [%(group)s] asks for %(wanted)s, but a clone is "
            "never striped finer than its parent",
            vars(fact),
        )
