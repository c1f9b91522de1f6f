# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""Give the space of deleted disks back, beside Nova's other work.

Deleting an instance only frees its disks' names; removing a terabyte takes
minutes.  One run at a time for each nova-compute; what a killed or failed run
leaves is found by the next, on any host.
"""

import atexit
import threading

from oslo_log import log as logging

from nova_rbd_backend.storage import offload
from nova_rbd_backend.virt import rbd_utils

LOG = logging.getLogger(__name__)

#: Between a run that has not done all, and the next.
RETRY_SECONDS = 10
#: What is in the way for longer will not go by itself, as the watch of a dead
#: client does after 30 s (osd_client_watch_timeout): an operator is told.
PATIENCE_SECONDS = 120


class Purger:
    """Starts a purge of the pool's deleted disks unless one is under way."""

    def __init__(self) -> None:
        # Green under eventlet, as the work that waits for it is.
        self._lock = threading.Lock()
        self._stopped = threading.Event()
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
        try:
            offload.spawn(self._work)
        except Exception:
            with self._lock:
                self._running = False
            raise
        # After the background threads' own, and so called before it: none of
        # them is to be waited for while it sleeps.
        atexit.unregister(self.stop)
        atexit.register(self.stop)

    def stop(self) -> None:
        """Try no more; a run that is under way ends by itself."""
        self._stopped.set()

    def _work(self) -> None:
        while self._wanted():
            while not self._purge_once():
                if self._stopped.wait(RETRY_SECONDS):
                    return

    def _wanted(self) -> bool:
        with self._lock:
            self._running, self._again = self._again, False
            return self._running

    @staticmethod
    def _purge_once() -> bool:
        """Purge; False: to be tried again soon."""
        try:
            report = rbd_utils.RBDDriver().purge()
        except Exception as error:
            LOG.error("Deleted disks were not purged: %s", error)
            return False
        if report.purged:
            LOG.info(
                "Purged %(disks)s in %(seconds).1f s",
                {
                    "disks": ", ".join(report.purged),
                    "seconds": report.seconds,
                },
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
PURGER = Purger()
