# SPDX-License-Identifier: Apache-2.0

"""Bytes from a file into an image and back: sparse and in parallel."""

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from nova_rbd_backend import errors, threads
from nova_rbd_backend.ceph.image import Image

WORKERS = 16
CHUNK_BYTES = 4 << 20
# Half an object: as much in flight as qemu-img has, in as many requests.
_IMPORT_BYTES = 2 << 20
# Zeros are looked for in blocks of this size: BlueStore's min_alloc_size on
# hard disks, below which a hole saves nothing.
_BLOCK_BYTES = 64 << 10
_ZEROS = bytes(_BLOCK_BYTES)
_PROGRESS_SECONDS = 0.5

Progress = Callable[[int], None]
Piece = tuple[int, int]


def import_file(
    image: Image,
    path: str,
    progress: Progress | None = None,
    workers: int = WORKERS,
) -> int:
    """Write a raw file into an empty image of at least its size.

    Holes and zeros are skipped. Memory: 4 MiB for each worker. Blocks until
    all is stored.

    :param progress: called in this thread with the bytes done so far
    :returns: bytes written
    :raises SizeMismatch: the file changed its size meanwhile
    """
    written = _Count()
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.lseek(fd, 0, os.SEEK_END)
        pieces = _pieces(data_ranges(fd, size), _IMPORT_BYTES)

        def work(offset: int, length: int) -> None:
            data = _read_all(fd, offset, length)
            for start, run in nonzero_runs(data):
                image.write(run, offset + start)
                written.add(len(run))

        _in_parallel(work, pieces, workers, progress)
        image.flush()
        same = os.lseek(fd, 0, os.SEEK_END) == size <= image.size_bytes()
    finally:
        os.close(fd)
    if not same:
        raise errors.SizeMismatch(
            "the file's size changed, or is more than the image's",
            operation="import into",
            pool=image.pool,
            image=image.name,
        )
    return written.total


def export(image: Image, path: str) -> int:
    """Write an open image, or the snap it shows, to a new sparse raw file.

    An old file there is overwritten.

    :returns: bytes written
    """
    written = _Count()
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    fd = os.open(path, flags, 0o600)
    try:
        os.ftruncate(fd, image.size_bytes())
        pieces = _pieces(image.extents(), CHUNK_BYTES)

        def work(offset: int, length: int) -> None:
            data = image.read(offset, length)
            for start, run in nonzero_runs(data):
                _write_all(fd, run, offset + start)
                written.add(len(run))

        _in_parallel(work, pieces)
        os.fsync(fd)
    finally:
        os.close(fd)
    return written.total


def copy(source: Image, target: Image, ranges: Iterable[Piece]) -> int:
    """Make ranges of an open image as they are in another; zeros are freed.

    :returns: bytes written
    """
    written = _Count()

    def work(offset: int, length: int) -> None:
        data = source.read(offset, length)
        end = 0
        for start, run in nonzero_runs(data):
            if start > end:
                target.zero(offset + end, start - end)
            target.write(run, offset + start)
            written.add(len(run))
            end = start + len(run)
        if end < length:
            target.zero(offset + end, length - end)

    # No two share an object, and a free one is freed whole.
    pieces = _pieces(ranges, target.object_bytes())
    _in_parallel(work, pieces)
    target.flush()
    return written.total


def data_ranges(fd: int, size_bytes: int) -> Iterator[Piece]:
    """(offset, length) of what the file system says is not a hole."""
    end = 0
    while end < size_bytes:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, min(end, size_bytes) - start


def _pieces(ranges: Any, chunk_bytes: int) -> Iterator[Piece]:
    """Cut ranges where chunks begin."""
    for start, length in ranges:
        end = start + length
        while start < end:
            cut = min(end, (start // chunk_bytes + 1) * chunk_bytes)
            yield start, cut - start
            start = cut


def nonzero_runs(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of the runs of blocks that are not all zeros."""
    begin: int | None = None
    for offset in range(0, len(data), _BLOCK_BYTES):
        if data.startswith(_ZEROS[: len(data) - offset], offset):
            if begin is not None:
                yield begin, data[begin:offset]
            begin = None
        elif begin is None:
            begin = offset
    if begin == 0:
        yield 0, data
    elif begin is not None:
        yield begin, data[begin:]


def _read_all(fd: int, offset: int, length: int) -> bytes:
    data = os.pread(fd, length, offset)
    if len(data) != length:
        raise errors.SizeMismatch(
            f"the file ends at byte {offset + len(data)}", operation="import"
        )
    return data


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view = view[count:]
        offset += count


class _Count:
    """Bytes so far, counted by several native threads."""

    def __init__(self) -> None:
        self.total = 0
        self._lock = threads.original_threading().Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self.total += count


class _Crew:
    """Native threads that share the pieces; the first error ends it."""

    def __init__(
        self, work: Callable[[int, int], None], pieces: Iterator[Piece]
    ):
        self._work = work
        self._pieces = pieces
        self._lock = threads.original_threading().Lock()
        self.done = _Count()
        self.error: BaseException | None = None

    def _next(self) -> Piece | None:
        with self._lock:
            return None if self.error else next(self._pieces, None)

    def run(self) -> None:
        try:
            while (piece := self._next()) is not None:
                self._work(*piece)
                self.done.add(piece[1])
        except BaseException as error:
            self.error = self.error or error


def _in_parallel(
    work: Callable[[int, int], None],
    pieces: Iterator[Piece],
    workers: int = WORKERS,
    progress: Progress | None = None,
) -> None:
    crew = _Crew(work, pieces)
    threading = threads.original_threading()
    crew_threads = [
        threading.Thread(
            target=crew.run, name="nova-rbd-transfer", daemon=True
        )
        for _ in range(workers)
    ]
    for thread in crew_threads:
        thread.start()
    try:
        for thread in crew_threads:
            while thread.is_alive():
                thread.join(_PROGRESS_SECONDS)
                if progress is not None and thread.is_alive():
                    progress(crew.done.total)
        if progress is not None and crew.error is None:
            progress(crew.done.total)
    except BaseException as error:
        # progress() may raise to cancel: no thread may outlive the image.
        crew.error = error
        for thread in crew_threads:
            thread.join()
    if crew.error is not None:
        raise crew.error
