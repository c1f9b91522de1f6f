# SPDX-License-Identifier: Apache-2.0

"""Free the space of deleted disks in the background.

Deleting an instance only frees the names of its disks, because removing a
terabyte takes minutes. Each nova-compute purges once at a time, what it has
deleted itself. In each period, one of the hosts finds what killed or failed
runs have left, and what has been kept for long enough.
"""

from collections.abc import Iterable

from oslo_log import log as logging

from nova_rbd_backend.storage.images import purge
from nova_rbd_backend.virt import edge
from nova_rbd_backend.virt.background import lasting, turns
from nova_rbd_backend.virt.background.worker import Background

LOG = logging.getLogger(__name__)
_STATES = lasting.States()

#: What could not be purged for longer than this is logged as an error.
#: The cause will not go away by itself, as a dead client's watch does after
#: 30 s (osd_client_watch_timeout).
PATIENCE_SECONDS = 120


def _purge_once() -> bool:
    """Purge all pools; return False to be called again soon."""
    try:
        with _STATES.run():
            store, seconds = edge.store(), turns.seconds()
            reports, failed = edge.run(lambda: store.purge(seconds), long=True)
            can_wait = [_log(report) for report in reports]
            if failed or any(_is_partial(report) for report in reports):
                _STATES.keep()
            for each in failed:
                _tell_failure(each, str(each.pool))
            _tell_clock(reports)
    except Exception as error:
        _tell_failure(error)
        return False
    return all(can_wait) and not failed


def _is_partial(report: purge.PurgeReport) -> bool:
    """Return whether a purge left something to a later one, or to others."""
    return bool(report.left or report.freed_elsewhere or not report.is_whole)


def _tell_failure(error: Exception, pool: str = "") -> None:
    text = "Deleted disks were not purged: %s"
    _STATES.tell(f"pool {pool}", str(error), LOG.error, text, error)


def _tell_clock(reports: Iterable[purge.PurgeReport]) -> None:
    """Log what is wrong with this host's clock, once for all pools."""
    remarks = (report.clock for report in reports if report.clock)
    if remark := next(remarks, None):
        text = "Disks may stay in the trash for too long: %s"
        _STATES.tell("clock", "", LOG.error, text, remark)


def _log(report: purge.PurgeReport) -> bool:
    """Log a report; return whether what is left can wait for a later start."""
    if report.purged:
        LOG.info(
            "Purged %s in %.1f s", ", ".join(report.purged), report.seconds
        )
    soon = [k for k in report.stuck if k.age_seconds < PATIENCE_SECONDS]
    for kept in report.stuck:
        log = LOG.info if kept in soon else LOG.error
        _STATES.tell(
            # A server that is rebuilt twice has two deleted disks of one name.
            kept.image_id or kept.image,
            f"{kept in soon} {kept.reason}",
            log,
            "%(what)s still takes space, after %(age)d s: %(reason)s",
            {
                "what": f"Deleted disk {kept.image} (image id {kept.image_id})"
                if kept.image_id
                else f"Draft {kept.image}",
                "age": kept.age_seconds,
                "reason": kept.reason,
            },
        )
    return not (soon or report.left)


#: The purger of this nova-compute.
PURGER = Background(_purge_once)
