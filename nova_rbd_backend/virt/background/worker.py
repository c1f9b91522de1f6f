# SPDX-License-Identifier: Apache-2.0

"""Run a nova-compute's background work, beside what Nova asks of it."""

import atexit
import threading
import time
from collections.abc import Callable, Iterator

from nova_rbd_backend import threads

#: The pause after a run that left something to do.
RETRY_SECONDS = 10
#: After PATIENCE_SECONDS with something left, each pause is twice as long as
#: the one before, up to LONGEST_PAUSE_SECONDS.
PATIENCE_SECONDS = 120
LONGEST_PAUSE_SECONDS = 600


class Background:
    """One kind of work, which runs once at a time."""

    def __init__(self, work: Callable[[], bool]) -> None:
        """Create the worker; nothing runs yet.

        :param work: logs its own errors; returns whether all is done, and is
            called again until it is
        """
        self._do = work
        # eventlet makes these green, like the threads that wait for them.
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self._running = False

    def start(self) -> None:
        """Start the work in the background, unless it is under way.

        Work that is under way is done once more when it ends, so that nothing
        new has to wait for the next periodic start.
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
        # Registered after the function that ends the background threads, and
        # therefore called before it. Otherwise that function would wait for a
        # thread that sleeps in _work().
        atexit.unregister(self.stop)
        atexit.register(self.stop)

    def stop(self) -> None:
        """Start no more runs. A run that is under way goes on to its end."""
        self._stopping = True
        self._wake.set()

    def _work(self) -> None:
        pauses = _pauses()
        while not self._stopping:
            self._wake.clear()
            done = self._do()
            with self._lock:
                if done and not self._wake.is_set():
                    self._running = False
                    return
            if self._wake.wait(next(pauses)):
                pauses = _pauses()


def _pauses() -> Iterator[float]:
    """Yield the pauses between runs that leave something to do."""
    begin = time.monotonic()
    seconds: float = RETRY_SECONDS
    while True:
        if time.monotonic() - begin > PATIENCE_SECONDS:
            seconds = min(2 * seconds, LONGEST_PAUSE_SECONDS)
        yield seconds
