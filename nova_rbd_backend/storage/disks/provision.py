# SPDX-License-Identifier: Apache-2.0

"""Flow: make an instance's disk, or finish what an earlier attempt began.

A disk that exists is only grown.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping

from nova_rbd_backend import errors, names
from nova_rbd_backend.ceph import transfer
from nova_rbd_backend.ceph.cluster import once_more
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.images.draft import (
    draft,
    free_name,
    import_file,
    settle_attempts,
)

DEPTH_LIMIT = 8


@dataclasses.dataclass(frozen=True)
class Provisioned:
    """A disk, and what was done to it.

    :ivar created: False: it existed, and was whole
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
    """Return whether an image exists, and is not half-way into the trash.

    An image that has its name was made to its end.
    """
    return whole_image_id(pool, name) is not None


@once_more
def whole_image_id(pool: Pool, name: str) -> str | None:
    """Return the id of a whole image; None: it is not whole, or missing."""
    image_id = pool.directory.image_id(name)
    if image_id is None or pool.directory.listed_id(name) != image_id:
        return None
    if journal.deletion(pool, image_id) is None:
        return image_id
    # The entry alone proves nothing: a delete may have been refused because
    # the disk was busy, or an operator may have restored it from the trash.
    return image_id if pool.trash.get(image_id) is None else None


@once_more
def clone_disk(
    pool: Pool,
    name: str,
    parent: names.GlanceLocation | names.SnapPath,
    size_bytes: int | None = None,
    metadata: Mapping[str, str] | None = None,
    depth_limit: int = DEPTH_LIMIT,
) -> Provisioned:
    """Clone an image's snap, copying nothing, and grow the clone.

    :param size_bytes: None, or less than the parent's: the parent's size
    :param depth_limit: a disk that would have more parents than this, one
        above the other, is copied after all
    :raises InvalidLocation: the parent is on another cluster
    :raises NotFound: there is no such parent
    """
    snap = _on(pool, parent)
    parent_pool = pool.beside(snap.pool, snap.namespace)

    def make(draft_name: str) -> int:
        pool.clone(parent_pool, snap.image, snap.snap, draft_name)
        if _depth(parent_pool, snap) >= depth_limit:
            with pool.open(draft_name, read_only=False) as disk:
                disk.flatten()
        return 0

    return _provision(pool, name, make, size_bytes, metadata)


def _depth(parent_pool: Pool, snap: names.SnapPath) -> int:
    # Only snapshots are clones themselves: asking about other parents would
    # cost each boot a request.
    if not names.is_snapshot(snap.image):
        return 0
    image_id = parent_pool.directory.image_id(snap.image)
    return 0 if image_id is None else parent_pool.depth(image_id)


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
) -> Provisioned:
    """Make a disk with the bytes of a local raw file. Takes long.

    :param size_bytes: None, or less than the file's: the file's size
    """

    def make(draft_name: str) -> int:
        return import_file(
            pool, draft_name, path, size_bytes, progress, workers
        )

    return _provision(pool, name, make, size_bytes, metadata)


@once_more
def filled_disk(
    pool: Pool,
    name: str,
    size_bytes: int,
    fill: Callable[[str], None],
    metadata: Mapping[str, str] | None = None,
) -> Provisioned:
    """Make a disk that the caller writes.

    :param fill: called with a draft's name; writes that empty image
    """

    def make(draft_name: str) -> int:
        pool.create(draft_name, size_bytes)
        fill(draft_name)
        return 0

    return _provision(pool, name, make, size_bytes, metadata)


def blank_disk(
    pool: Pool,
    name: str,
    size_bytes: int,
    metadata: Mapping[str, str] | None = None,
) -> Provisioned:
    """Make an empty disk."""
    return filled_disk(pool, name, size_bytes, lambda _draft: None, metadata)


@once_more
def grow(pool: Pool, name: str, size_bytes: int) -> bool:
    """Grow a disk to size_bytes. As big already: done.

    :returns: whether it changed
    :raises ImageNotFound: there is no such disk
    """
    image_id = pool.directory.image_id(name)
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
    found_bytes = pool.headers.size_bytes(image_id)
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
) -> Provisioned:
    started = time.monotonic()
    with journal.sole_maker(pool, name):
        # Attempts of a living host too, which then finds its draft gone: Nova
        # has one host work on an instance, and has given the other one up.
        undone = settle_attempts(pool, name)
        image_id = whole_image_id(pool, name)
        if image_id is None:
            undone = free_name(pool, name) or undone
            made = _make_whole(pool, name, make, size_bytes, metadata or {})
        else:
            made = _Made(_grow(pool, name, image_id, size_bytes), 0)
    return Provisioned(
        name=name,
        size_bytes=made.size.size_bytes,
        created=image_id is None,
        grown=made.size.grown,
        undone=undone,
        bytes_written=made.bytes_written,
        seconds=time.monotonic() - started,
    )


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
    with draft(pool, name) as begun:
        bytes_written = make(begun.name)
        size = _grow(pool, begun.name, begun.image_id, size_bytes)
        pool.headers.set_metadata(
            begun.image_id, metadata, pool.options.conf_metadata
        )
    return _Made(size, bytes_written)
