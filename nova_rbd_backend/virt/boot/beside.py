# SPDX-License-Identifier: Apache-2.0

"""Write an image into the pool while Nova fetches it."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from nova_rbd_backend.ceph.incoming import Incoming

T = TypeVar("T")


class Beside(Generic[T]):
    """Work on the bytes of an image that come meanwhile.

    :ivar begun: whether they come; if not, the work is not done
    """

    def __init__(self, size_bytes: int, work: Callable[[Incoming], T]):
        self.begun = False
        self._incoming = Incoming(size_bytes)
        self._work = work
        self._results: list[T] = []
        self._error: BaseException | None = None
        # Eventlet makes it green.
        self._thread = threading.Thread(
            target=self._run, name="nova-rbd-beside", daemon=True
        )

    def begin(self) -> Incoming:
        """Begin the work; the caller puts the bytes."""
        self.begun = True
        self._thread.start()
        return self._incoming

    def _run(self) -> None:
        try:
            self._results.append(self._work(self._incoming))
        except BaseException as error:
            self._error = error
        finally:
            self._incoming.close()

    def feed(self, fetch: Callable[[], None]) -> None:
        """Fetch the image, and end the work, if it was begun meanwhile.

        :param fetch: puts the bytes; if it raises, the work fails
        :raises: the work's own error, even if fetch() then found that nobody
            took its bytes
        """
        try:
            fetch()
            if self.begun:
                self._incoming.end()
        except BaseException as error:
            if not self.begun:
                raise
            self._incoming.fail(error)
            self._thread.join()
            if self._error not in (None, error):
                raise self._error from error
            if not self._results:
                raise
        if self.begun:
            self._thread.join()
            if self._error is not None:
                raise self._error

    def result(self) -> T:
        """Return what the work returned."""
        return self._results[0]
