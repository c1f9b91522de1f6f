# SPDX-License-Identifier: Apache-2.0

"""Flow: make an instance's disk, or finish what was begun before.

An image is made under a draft's name and gets its own when it is whole: a
disk that has its name is whole, to this backend, to the in-tree one and to
an operator. An image that is there is only grown. A process may be killed
at any point: the journal leads the next one to what it left.
"""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Mapping

from nova_rbd_backend import errors, names
from nova_rbd_backend.storage import journal, lineage, transfer, trash
from nova_rbd_backend.storage.cluster import once_more
from nova_rbd_backend.storage.pool import Pool

DEPTH_LIMIT = 8


@dataclasses.dataclass(frozen=True)
class Facts:
    """What was done.

    :ivar created: False: it was there and whole already
    :ivar undone: a half-made image of an earlier attempt was in its place
    """

    name: str
    size_bytes: int
    created: bool
    grown: bool
    undone: bool
    bytes_written: int
    seconds: float


def is_whole(pool: Pool, name: str) -> bool:
    """Whether the image is there and not half-way into the trash.

    It has its name, so it was made to its end.
    """
    return whole_image_id(pool, name) is not None


@once_more
def whole_image_id(pool: Pool, name: str) -> str | None:
    """The id of an image that is whole; None: it is not, or not there."""
    image_id = pool.image_id(name)
    if image_id is None or pool.listed_id(name) != image_id:
        return None
    if journal.deletion(pool, image_id) is None:
        return image_id
    # The entry alone says nothing: a delete may have been refused as busy,
    # or an operator may have restored the image from the trash.
    return image_id if pool.trash_get(image_id) is None else None


@once_more
def clone_disk(
    pool: Pool,
    name: str,
    parent: names.GlanceLocation | names.SnapPath,
    size_bytes: int | None = None,
    metadata: Mapping[str, str] | None = None,
    depth_limit: int = DEPTH_LIMIT,
) -> Facts:
    """Clone an image's snap, copying nothing, and grow it.

    :param size_bytes: None, or less than the parent's: the parent's
    :param depth_limit: a disk with more parents than this, one above the
        other, is copied after all
    :raises InvalidLocation: the parent is on another cluster
    :raises NotFound: there is no such parent
    """
    snap = _on(pool, parent)
    parent_pool = pool.cluster.pool(snap.pool, snap.namespace)

    def make(draft: str) -> int:
        pool.clone(parent_pool, snap.image, snap.snap, draft)
        if _depth(parent_pool, snap) >= depth_limit:
            with pool.open(draft, read_only=False) as disk:
                disk.flatten()
        return 0

    return _provision(pool, name, make, size_bytes, metadata)


def _depth(parent_pool: Pool, snap: names.SnapPath) -> int:
    # Only a snapshot is made as a clone; a look at others would cost each
    # boot a request.
    if not names.is_snapshot(snap.image):
        return 0
    image_id = parent_pool.image_id(snap.image)
    return 0 if image_id is None else lineage.depth(parent_pool, image_id)


def _on(
    pool: Pool, parent: names.GlanceLocation | names.SnapPath
) -> names.SnapPath:
    if isinstance(parent, names.SnapPath):
        return parent
    if parent.fsid != pool.cluster.fsid():
        raise errors.InvalidLocation(
            f"it is on cluster {parent.fsid}, not {pool.cluster.fsid()}",
            operation="clone",
            pool=parent.pool,
            image=parent.image,
            snap=parent.snap,
        )
    return parent.snap_path


@once_more
def import_disk(
    pool: Pool,
    name: str,
    path: str,
    size_bytes: int | None = None,
    metadata: Mapping[str, str] | None = None,
    progress: transfer.Progress | None = None,
    workers: int = transfer.WORKERS,
) -> Facts:
    """Make a disk with the bytes of a local raw file; long.

    :param size_bytes: None, or less than the file's: the file's
    """

    def make(draft: str) -> int:
        return import_draft(pool, draft, path, size_bytes, progress, workers)

    return _provision(pool, name, make, size_bytes, metadata)


def import_draft(
    pool: Pool,
    draft: str,
    path: str,
    size_bytes: int | None,
    progress: transfer.Progress | None,
    workers: int,
) -> int:
    """Make an image, at least as big as a local raw file, with its bytes.

    :returns: bytes written
    """
    file_bytes = os.path.getsize(path)
    pool.create(draft, max(file_bytes, size_bytes or 0))
    with pool.open(draft, read_only=False) as disk:
        return transfer.import_file(disk, path, progress, workers)


@once_more
def filled_disk(
    pool: Pool,
    name: str,
    size_bytes: int,
    fill: Callable[[str], None],
    metadata: Mapping[str, str] | None = None,
) -> Facts:
    """Make a disk that something else writes; as long as that takes.

    :param fill: writes the empty image whose name, a draft's, it is given
    """

    def make(draft: str) -> int:
        pool.create(draft, size_bytes)
        fill(draft)
        return 0

    return _provision(pool, name, make, size_bytes, metadata)


def blank_disk(
    pool: Pool,
    name: str,
    size_bytes: int,
    metadata: Mapping[str, str] | None = None,
) -> Facts:
    """Make an empty disk."""
    return filled_disk(pool, name, size_bytes, lambda _draft: None, metadata)


@once_more
def grow(pool: Pool, name: str, size_bytes: int) -> bool:
    """Grow a disk to size_bytes; as big already: done.

    :returns: whether it changed
    :raises ImageNotFound: there is no such disk
    """
    image_id = pool.image_id(name)
    if image_id is None:
        raise errors.ImageNotFound(
            operation="grow", pool=str(pool), image=name
        )
    return _grow(pool, name, image_id, size_bytes).grown


@dataclasses.dataclass(frozen=True)
class _Size:
    size_bytes: int
    grown: bool


def _grow(
    pool: Pool, name: str, image_id: str, wanted_bytes: int | None
) -> _Size:
    found_bytes = pool.image_size_bytes(image_id)
    if wanted_bytes is None or found_bytes >= wanted_bytes:
        return _Size(found_bytes, grown=False)
    with pool.open(name, read_only=False) as disk:
        disk.resize(wanted_bytes)
    return _Size(wanted_bytes, grown=True)


def _provision(
    pool: Pool,
    name: str,
    make: Callable[[str], int],
    size_bytes: int | None,
    metadata: Mapping[str, str] | None,
) -> Facts:
    started = time.monotonic()
    with journal.sole_maker(pool, name):
        # Of a live host too, which then finds its draft gone: Nova has a
        # single host work on an instance, so that one has been given up.
        undone = trash.settle_attempts(pool, name)
        image_id = whole_image_id(pool, name)
        if image_id is None:
            undone = free_name(pool, name) or undone
            made = _make_whole(pool, name, make, size_bytes, metadata or {})
        else:
            made = _Made(_grow(pool, name, image_id, size_bytes), 0)
    return Facts(
        name=name,
        size_bytes=made.size.size_bytes,
        created=image_id is None,
        grown=made.size.grown,
        undone=undone,
        bytes_written=made.bytes_written,
        seconds=time.monotonic() - started,
    )


def free_name(pool: Pool, name: str) -> bool:
    """Free a name that leads to no whole image; whether it was taken.

    It was half-way into the trash, or a process died inside rbd_create.
    """
    if not pool.exists(name) and pool.listed_id(name) is None:
        return False
    trash.discard(pool, name)
    return True


@dataclasses.dataclass(frozen=True)
class _Made:
    size: _Size
    bytes_written: int


def _make_whole(
    pool: Pool,
    name: str,
    make: Callable[[str], int],
    size_bytes: int | None,
    metadata: Mapping[str, str],
) -> _Made:
    entry = journal.begin_creation(pool, name)
    try:
        bytes_written = make(entry.draft)
        image_id = pool.image_id(entry.draft)
        if image_id is None:
            raise errors.TakenOver(
                "the draft is gone",
                operation="create",
                pool=str(pool),
                image=name,
            )
        size = _grow(pool, entry.draft, image_id, size_bytes)
        pool.set_metadata(image_id, metadata, pool.options.conf_metadata)
        pool.publish(entry.draft, image_id, name)
    except BaseException:
        # What cannot be undone now stays in the journal for the next one.
        with contextlib.suppress(errors.StorageError):
            trash.settle(pool, entry)
        raise
    journal.drop(pool, entry)
    return _Made(size, bytes_written)
