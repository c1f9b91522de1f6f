# SPDX-License-Identifier: Apache-2.0

"""An image as a file that is read from its beginning to its end.

As often as it takes: an upload that was broken off begins anew.
"""

import bisect
import contextlib
from collections.abc import Callable

from nova_rbd_backend.ceph.image import Image

CHUNK_BYTES = 4 << 20


class ImageReader:
    """Reads only what is allocated; the rest is zeros.

    The image is opened by the first read() and closed at its end, so that its
    handle stays in the thread that reads.
    """

    def __init__(
        self,
        open_image: Callable[[], contextlib.AbstractContextManager[Image]],
    ):
        self._open = open_image
        self._stack = contextlib.ExitStack()
        self._image: Image | None = None
        self._ends: list[int] = []
        self._starts: list[int] = []
        self._size = 0
        self._offset = 0
        self._buffer = memoryview(b"")
        #: Of these, so many were read from Ceph.
        self.bytes_read = 0

    def read(self, length: int = -1) -> bytes:
        """Return the next bytes, at most length; empty at the end."""
        if self._image is None:
            self._begin()
        if length < 0:
            length = self._size
        if not self._buffer:
            self._buffer = memoryview(self._next_chunk())
        data = bytes(self._buffer[:length])
        self._buffer = self._buffer[length:]
        if not data:
            self.close()
        return data

    def seek(self, offset: int, /) -> int:
        """Go on from there, in the thread that reads next."""
        self.close()
        self._offset = offset
        return offset

    def close(self) -> None:
        """Close the image; closed: done."""
        self._stack.close()
        self._image = None
        self._buffer = memoryview(b"")

    def _begin(self) -> None:
        image = self._stack.enter_context(self._open())
        self._size = image.size_bytes()
        extents = sorted(image.extents())
        self._starts = [offset for offset, _ in extents]
        self._ends = [offset + length for offset, length in extents]
        self._image = image

    def _next_chunk(self) -> bytes:
        start = self._offset
        end = min(start + CHUNK_BYTES, self._size)
        self._offset = end
        if not self._holds_data(start, end):
            return bytes(end - start)
        assert self._image is not None
        self.bytes_read += end - start
        return self._image.read(start, end - start)

    def _holds_data(self, start: int, end: int) -> bool:
        index = bisect.bisect_right(self._ends, start)
        return index < len(self._starts) and self._starts[index] < end
