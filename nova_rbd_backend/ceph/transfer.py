# SPDX-License-Identifier: Apache-2.0

"""Copy bytes between files and images: sparse and in parallel."""

import errno
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator

from nova_rbd_backend import errors, threads
from nova_rbd_backend.ceph.image import Image
from nova_rbd_backend.ceph.incoming import Incoming

WORKERS = 16
CHUNK_BYTES = 4 << 20
# Half an object: as much in flight as qemu-img has, in as many requests.
_IMPORT_BYTES = 2 << 20
# The size of the blocks that are checked for zeros: BlueStore's min_alloc_size
# on hard disks, below which a hole saves nothing.
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

    Skips holes and zeros. Needs 4 MiB of memory for each worker. Blocks until
    all data is stored.

    :param progress: called in this thread with the bytes done so far
    :returns: bytes written
    :raises SizeMismatch: the file has changed its size meanwhile
    """
    with open(path, "rb", buffering=0) as file:
        fd = file.fileno()
        size = os.lseek(fd, 0, os.SEEK_END)
        pieces = _pieces(data_ranges(fd, size), _IMPORT_BYTES)

        def work(offset: int, length: int) -> int:
            data = os.pread(fd, length, offset)
            if len(data) != length:
                raise errors.SizeMismatch(
                    f"the file ends at byte {offset + len(data)}",
                    operation="import",
                )
            return _write_runs(data, offset, image.write)

        written = _in_parallel(work, pieces, workers, progress)
        image.flush()
        same = os.lseek(fd, 0, os.SEEK_END) == size <= image.size_bytes()
    if not same:
        raise errors.SizeMismatch(
            "the file's size changed, or is more than the image's",
            operation="import into",
            pool=image.pool,
            image=image.name,
        )
    return written


def import_incoming(
    image: Image,
    incoming: Incoming,
    progress: Progress | None = None,
    workers: int = WORKERS,
) -> int:
    """Write bytes into an empty image of their size, as they come.

    Skips zeros, as import_file does. Blocks until all data is stored.

    :returns: bytes written
    :raises: what the bytes failed with
    """

    def work(offset: int, _length: int) -> int:
        return _write_runs(incoming.take(offset), offset, image.write)

    def told(done_bytes: int) -> None:
        try:
            if progress is not None:
                progress(done_bytes)
        except BaseException:
            incoming.close()  # a worker may wait for more
            raise

    written = _in_parallel(work, incoming.pieces(), workers, told)
    image.flush()
    return written


def export(image: Image, path: str) -> int:
    """Write an open image, or the snap it shows, to a sparse raw file.

    Overwrites an existing file.

    :returns: bytes written
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    fd = os.open(path, flags, 0o600)
    try:
        os.ftruncate(fd, image.size_bytes())
        write = functools.partial(_write_all, fd)

        def work(offset: int, length: int) -> int:
            return _write_runs(image.read(offset, length), offset, write)

        written = _in_parallel(work, _pieces(image.extents(), CHUNK_BYTES))
        os.fsync(fd)
    finally:
        os.close(fd)
    return written


def copy(source: Image, target: Image, ranges: Iterable[Piece]) -> int:
    """Copy ranges to another image, free zeros; return the bytes written."""

    def work(offset: int, length: int) -> int:
        data = source.read(offset, length)
        return _write_runs(data, offset, target.write, target.zero)

    # No two pieces share an object, so that an object of zeros is freed whole.
    pieces = _pieces(ranges, target.layout().object_bytes)
    written = _in_parallel(work, pieces)
    target.flush()
    return written


def data_ranges(fd: int, size_bytes: int) -> Iterator[Piece]:
    """Yield (offset, length) of the ranges of a file that are not holes."""
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


def _pieces(ranges: Iterable[Piece], chunk_bytes: int) -> Iterator[Piece]:
    """Cut ranges where chunks begin."""
    for start, length in ranges:
        end = start + length
        while start < end:
            cut = min(end, (start // chunk_bytes + 1) * chunk_bytes)
            yield start, cut - start
            start = cut


def nonzero_runs(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, bytes) of the runs of blocks that are not all zeros."""
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


def _write_runs(
    data: bytes,
    offset: int,
    write: Callable[[bytes, int], None],
    zero: Callable[[int, int], None] = lambda _offset, _length: None,
) -> int:
    """Write data except its zeros; return the bytes written.

    :param zero: called with (offset, length) of the zeros
    """
    written, end = 0, 0
    for start, run in itertools.chain(nonzero_runs(data), [(len(data), b"")]):
        if start > end:
            zero(offset + end, start - end)
        if run:
            write(run, offset + start)
        written += len(run)
        end = start + len(run)
    return written


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view = view[count:]
        offset += count


class _Crew:
    """The state that native threads share; the first error ends their work."""

    def __init__(
        self, work: Callable[[int, int], int], pieces: Iterator[Piece]
    ):
        self._work = work
        self._pieces = pieces
        self._lock = threads.original_threading().Lock()
        self.done_bytes = 0  # zeros included
        self.written_bytes = 0
        self.error: BaseException | None = None

    def _next(self) -> Piece | None:
        with self._lock:
            return None if self.error else next(self._pieces, None)

    def run(self) -> None:
        try:
            while (piece := self._next()) is not None:
                written = self._work(*piece)
                with self._lock:
                    self.done_bytes += piece[1]
                    self.written_bytes += written
        except BaseException as error:
            self.error = self.error or error


def _in_parallel(
    work: Callable[[int, int], int],
    pieces: Iterator[Piece],
    workers: int = WORKERS,
    progress: Progress | None = None,
) -> int:
    """Do the work on all pieces; return the sum of what it returned."""
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
                    progress(crew.done_bytes)
        if progress is not None and crew.error is None:
            progress(crew.done_bytes)
    except BaseException as error:
        # progress() may raise to cancel: no thread may outlive the image.
        crew.error = error
        for thread in crew_threads:
            thread.join()
    if crew.error is not None:
        raise crew.error
    return crew.written_bytes
