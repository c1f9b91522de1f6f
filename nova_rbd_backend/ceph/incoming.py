# SPDX-License-Identifier: Apache-2.0

"""Bytes that come from elsewhere while they are written into an image.

One thread puts them, and others take and write them. Those find out only at
the end whether the bytes were what they should be.
"""

import collections
from collections.abc import Iterator

from nova_rbd_backend import errors, threads

#: What is to be put at a time, so that no two writers share an object.
PIECE_BYTES = 4 << 20
_MOST_WAITING = 2


class Incoming:
    """The bytes of a raw image.

    :ivar size_bytes: how many will come
    """

    def __init__(self, size_bytes: int):
        self.size_bytes = size_bytes
        self._changed = threads.original_threading().Condition()
        self._waiting: collections.deque[bytes] = collections.deque()
        self._taken: dict[int, bytes] = {}
        self._put_bytes = 0
        self._whole = self._closed = False
        self._fault: BaseException | None = None

    def put(self, data: bytes) -> None:
        """Add bytes. Blocks this native thread while too many wait.

        :raises SizeMismatch: there are more than there should be
        :raises Conflict: nobody takes them any more
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or len(self._waiting) < _MOST_WAITING
            )
            if self._closed:
                raise errors.Conflict(
                    "the image is not written any more", operation="import"
                )
            self._put_bytes += len(data)
            if self._put_bytes > self.size_bytes:
                raise self._mismatch()
            self._waiting.append(data)
            self._changed.notify_all()

    def end(self) -> None:
        """Say that all bytes have come, and are what they should be.

        :raises SizeMismatch: there are fewer than there should be
        """
        with self._changed:
            if self._put_bytes != self.size_bytes:
                raise self._mismatch()
            self._whole = True
            self._changed.notify_all()

    def fail(self, fault: BaseException) -> None:
        """Have those who take the bytes raise this, instead of ending."""
        with self._changed:
            self._fault = fault
            self._changed.notify_all()

    def close(self) -> None:
        """Say that no more bytes are taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def pieces(self) -> Iterator[tuple[int, int]]:
        """Yield (offset, length) of what comes, until all has.

        Blocks. take() returns the bytes.
        """
        offset = 0
        while (data := self._next()) is not None:
            self._taken[offset] = data
            yield offset, len(data)
            offset += len(data)

    def take(self, offset: int) -> bytes:
        """Return the bytes of a piece, once."""
        return self._taken.pop(offset)

    def _next(self) -> bytes | None:
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._fault or self._closed or self._waiting or self._whole
                )
            )
            if self._fault is not None:
                raise self._fault
            if self._closed:
                raise errors.Conflict("given up", operation="import")
            data = self._waiting.popleft() if self._waiting else None
            self._changed.notify_all()
            return data

    def _mismatch(self) -> errors.SizeMismatch:
        return errors.SizeMismatch(
            f"{self._put_bytes} bytes have come instead of {self.size_bytes}",
            operation="import",
        )
