# SPDX-License-Identifier: Apache-2.0

"""Read an image as a file, from its beginning to its end.

An upload that failed may seek back and begin again.
"""

import collections
import contextlib
from collections.abc import Callable

from nova_rbd_backend.ceph.image import Image

CHUNK_BYTES = 4 << 20


class ImageReader:
    """A file object that reads only allocated ranges; the rest is zeros.

    The first read() opens the image, and the read() at its end closes it, so
    that its handle stays in the thread that reads.
    """

    def __init__(
        self,
        open_image: Callable[[], contextlib.AbstractContextManager[Image]],
    ):
        self._open = open_image
        self._stack = contextlib.ExitStack()
        self._image: Image | None = None
        self._extents: collections.deque[tuple[int, int]]
        self._size = 0
        self._offset = 0
        self._buffer = memoryview(b"")

    def read(self, length: int = -1) -> bytes:
        """Return the next bytes, at most length; empty at the end."""
        if self._image is None:
            image = self._stack.enter_context(self._open())
            self._size = image.size_bytes()
            self._extents = collections.deque(sorted(image.extents()))
            self._image = image
        if length < 0:
            length = self._size
        if not self._buffer:
            self._buffer = memoryview(self._next_chunk(self._image))
        data = bytes(self._buffer[:length])
        self._buffer = self._buffer[length:]
        if not data:
            self.close()
        return data

    def seek(self, offset: int, /) -> int:
        """Let the next read() open the image again, and read from here."""
        self.close()
        self._offset = offset
        return offset

    def close(self) -> None:
        """Close the image if it is open."""
        self._stack.close()
        self._image = None
        self._buffer = memoryview(b"")

    def _next_chunk(self, image: Image) -> bytes:
        start = self._offset
        end = min(start + CHUNK_BYTES, self._size)
        self._offset = end
        while self._extents and sum(self._extents[0]) <= start:
            self._extents.popleft()
        if self._extents and self._extents[0][0] < end:
            return image.read(start, end - start)
        return bytes(end - start)
