# SPDX-License-Identifier: Apache-2.0

"""Free the space of deleted disks, beside Nova's other work.

Deleting an instance only frees its disks' names: removing a terabyte takes
minutes. Each nova-compute has one run at a time. What a killed or failed run
leaves, the next run finds, on any host.
"""

from oslo_log import log as logging

from nova_rbd_backend.storage.images import purge
from nova_rbd_backend.virt import edge
from nova_rbd_backend.virt.background.worker import Background

LOG = logging.getLogger(__name__)

#: After this time the operator is told: what holds a disk for longer will not
#: end by itself, as a dead client's watch does after 30 s
#: (osd_client_watch_timeout).
PATIENCE_SECONDS = 120


def _purge_once() -> bool:
    """Purge all pools; False: try again soon."""
    try:
        reports = edge.run(edge.store().purge, long=True)
    except Exception as error:
        LOG.error("Deleted disks were not purged: %s", error)
        return False
    can_wait = [_log(report) for report in reports]
    return all(can_wait)


def _log(report: purge.PurgeReport) -> bool:
    """Log what was done and what was not; return whether the rest can wait."""
    if report.purged:
        LOG.info(
            "Purged %(disks)s in %(seconds).1f s",
            {"disks": ", ".join(report.purged), "seconds": report.seconds},
        )
    soon = [k for k in report.stuck if k.age_seconds < PATIENCE_SECONDS]
    for kept in report.stuck:
        level = LOG.info if kept in soon else LOG.error
        level(
            "Deleted disk %(disk)s (image id %(id)s) still takes space, "
            "after %(age)d s: %(reason)s",
            {
                "disk": kept.image,
                "id": kept.image_id,
                "age": kept.age_seconds,
                "reason": kept.reason,
            },
        )
    return not (soon or report.left)


#: This nova-compute's.
PURGER = Background(_purge_once)
