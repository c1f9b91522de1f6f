# SPDX-License-Identifier: Apache-2.0

"""Work of a nova-compute that goes on beside what Nova asks of it."""

import atexit
import threading
import time
from collections.abc import Callable

from nova_rbd_backend import threads

#: Between a run that has not done all, and the next.
RETRY_SECONDS = 10
#: What does not go well for longer than PATIENCE_SECONDS is tried less and
#: less often, and at least so often.
PATIENCE_SECONDS = 120
LONGEST_PAUSE_SECONDS = 600


class Background:
    """Starts one kind of work unless it is under way."""

    def __init__(self, work: Callable[[], bool]) -> None:
        """Take the work, which logs its own errors.

        :param work: returns whether all is done; else it is called again
        """
        self._do = work
        # Green under eventlet, as the work that waits for it is.
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self._running = False

    def start(self) -> None:
        """Work in the background.

        A run that is under way looks once more when it is done, so that what
        comes up meanwhile does not wait for the next periodic run.
        """
        with self._lock:
            self._wake.set()
            if self._running:
                return
            self._running = True
        try:
            threads.spawn(self._work)
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
        self._stopping = True
        self._wake.set()

    def _work(self) -> None:
        pauses = _Pauses()
        while not self._stopping:
            self._wake.clear()
            done = self._do()
            with self._lock:
                if done and not self._wake.is_set():
                    self._running = False
                    return
            if self._wake.wait(pauses.next()):
                pauses = _Pauses()


class _Pauses:
    """How long to wait after each run of work that does not go well."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._last: float = RETRY_SECONDS

    def next(self) -> float:
        if time.monotonic() - self._begin > PATIENCE_SECONDS:
            self._last = min(2 * self._last, LONGEST_PAUSE_SECONDS)
        return self._last
