# SPDX-License-Identifier: Apache-2.0

"""Give the space of deleted disks back, beside Nova's other work.

Deleting an instance only frees its disks' names; removing a terabyte takes
minutes.  One run at a time for each nova-compute; what a killed or failed run
leaves is found by the next, on any host.
"""

from oslo_log import log as logging

from nova_rbd_backend.storage import purge
from nova_rbd_backend.virt import rbd_utils
from nova_rbd_backend.virt.background import Background

LOG = logging.getLogger(__name__)

#: What is in the way for longer will not go by itself, as the watch of a dead
#: client does after 30 s (osd_client_watch_timeout): an operator is told.
PATIENCE_SECONDS = 120


def _purge_once() -> bool:
    """Purge all pools; False: to be tried again soon."""
    try:
        reports = rbd_utils.RBDDriver().purge()
    except Exception as error:
        LOG.error("Deleted disks were not purged: %s", error)
        return False
    told = [_tell(report) for report in reports]
    return all(told)


def _tell(report: purge.PurgeReport) -> bool:
    """Log what was done and what not; whether the rest can wait."""
    if report.purged:
        LOG.info(
            "Purged %(disks)s in %(seconds).1f s",
            {"disks": ", ".join(report.purged), "seconds": report.seconds},
        )
    soon = [k for k in report.stuck if k.age_seconds < PATIENCE_SECONDS]
    for kept in report.stuck:
        log = LOG.info if kept in soon else LOG.error
        log(
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


#: The one of this nova-compute.
PURGER = Background(_purge_once)
