"""Give the space of deleted disks back, beside Nova's other work.

Deleting an instance only frees its disks' names; removing a terabyte takes
minutes.  One run at a time for each nova-compute; what a killed or failed run
leaves is found by the next, on any host.
"""

import threading

from oslo_log import log as logging

from nova_rbd_backend.storage import offload
from nova_rbd_backend.virt import rbd_utils

LOG = logging.getLogger(__name__)


class Purger:
    """Starts a purge of the pool's deleted disks unless one is under way."""

    def __init__(self) -> None:
        # Green under eventlet, as the work that waits for it is.
        self._lock = threading.Lock()
        self._running = False
        self._again = False

    def start(self) -> None:
        """Purge in the background.

        A run that is under way looks once more when it is done, so that a
        disk deleted meanwhile does not wait for the next periodic run.
        """
        with self._lock:
            self._again = True
            if self._running:
                return
            self._running = True
        offload.spawn(self._work)

    def _work(self) -> None:
        while self._wanted():
            self._purge_once()

    def _wanted(self) -> bool:
        with self._lock:
            self._running, self._again = self._again, False
            return self._running

    @staticmethod
    def _purge_once() -> None:
        try:
            report = rbd_utils.RBDDriver().purge()
        except Exception as error:
            # Nobody waits for this run; the next one tries again.
            LOG.error("Deleted disks were not purged: %s", error)
            return
        if report.purged:
            LOG.info(
                "Purged %(disks)s in %(seconds).1f s",
                {
                    "disks": ", ".join(report.purged),
                    "seconds": report.seconds,
                },
            )
        for kept in report.stuck:
            LOG.error(
                "Deleted disk %(disk)s (image id %(id)s) still takes space, "
                "after %(age)d s: %(reason)s",
                {
                    "disk": kept.image,
                    "id": kept.image_id,
                    "age": kept.age_seconds,
                    "reason": kept.reason,
                },
            )
