# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""Flow: make an instance's disk, or finish what was begun before.

All of them: an image that is there and whole is only grown; a half-made
one of an earlier attempt is removed first; on failure nothing is left. A
process may be killed at any point: see journal.py for how the next one
knows.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping

from nova_rbd_backend import errors, names
from nova_rbd_backend.storage import journal, transfer, trash
from nova_rbd_backend.storage.cluster import once_more
from nova_rbd_backend.storage.pool import Pool


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
    """Whether the image is there, made to its end and not being deleted."""
    return whole_image_id(pool, name) is not None


@once_more
def whole_image_id(pool: Pool, name: str) -> str | None:
    """The id of an image that is whole; None: it is not, or not there."""
    image_id = pool.image_id(name)
    if image_id is None or journal.deletion(pool, image_id) is not None:
        return None
    if journal.creation(pool, name) is not None and not _made(pool, name):
        return None
    return image_id


def _made(pool: Pool, name: str) -> bool:
    """Whether a flow here got as far as its last step."""
    try:
        with pool.open(name) as disk:
            return journal.MADE_KEY in disk.metadata()
    except errors.NotFound:
        return False


@once_more
def clone_disk(
    pool: Pool,
    name: str,
    parent: names.GlanceLocation | names.SnapPath,
    size_bytes: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Facts:
    """Clone an image's snap, copying nothing, and grow it.

    :param size_bytes: None, or less than the parent's: the parent's
    :raises InvalidLocation: the parent is on another cluster
    :raises NotFound: there is no such parent
    """
    snap = _on(pool, parent)
    parent_pool = pool.cluster.pool(snap.pool, snap.namespace)

    def make() -> int:
        pool.clone(parent_pool, snap.image, snap.snap, name)
        return 0

    return _provision(pool, name, make, size_bytes, metadata)


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

    def make() -> int:
        with open(path, "rb") as source:
            file_bytes = source.seek(0, 2)
        pool.create(name, max(file_bytes, size_bytes or 0))
        with pool.open(name, read_only=False) as disk:
            return transfer.import_file(disk, path, progress, workers)

    return _provision(pool, name, make, size_bytes, metadata)


@once_more
def blank_disk(
    pool: Pool,
    name: str,
    size_bytes: int,
    metadata: Mapping[str, str] | None = None,
) -> Facts:
    """Make an empty disk."""

    def make() -> int:
        pool.create(name, size_bytes)
        return 0

    return _provision(pool, name, make, size_bytes, metadata)


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
    if pool.image_size_bytes(image_id) >= size_bytes:
        return False
    with pool.open(name, read_only=False) as disk:
        disk.resize(size_bytes)
    return True


def _provision(
    pool: Pool,
    name: str,
    make: Callable[[], int],
    size_bytes: int | None,
    metadata: Mapping[str, str] | None,
) -> Facts:
    started = time.monotonic()
    image_id = whole_image_id(pool, name)
    created = image_id is None
    undone, bytes_written, grown = False, 0, False
    if image_id is None:
        with journal.Making(pool, name) as making:
            undone = _clear(making, name)
            with _undone_on_error(making):
                bytes_written = make()
                if size_bytes is not None:
                    grown = grow(pool, name, size_bytes)
                image_id = _sign(making, metadata or {})
                making.finish()
    else:
        journal.drop_own_creation(pool, name)
        if size_bytes is not None:
            grown = grow(pool, name, size_bytes)
    return Facts(
        name=name,
        size_bytes=pool.image_size_bytes(image_id),
        created=created,
        grown=grown,
        undone=undone,
        bytes_written=bytes_written,
        seconds=time.monotonic() - started,
    )


def _clear(making: journal.Making, name: str) -> bool:
    """Remove what an earlier attempt left; whether there was something."""
    existed = making.pool.exists(name)
    if existed or making.taken_over:
        trash.discard(making.pool, name)
    return existed


@contextlib.contextmanager
def _undone_on_error(making: journal.Making) -> Iterator[None]:
    try:
        yield
    except errors.TakenOver:
        # The name is the other host's now: its image is not touched.
        raise
    except BaseException:
        # What cannot be undone now stays in the journal for the next one.
        with contextlib.suppress(errors.StorageError):
            trash.discard(making.pool, making.entry.image)
            making.finish()
        raise


def _sign(making: journal.Making, metadata: Mapping[str, str]) -> str:
    """Write the metadata; the image is whole with it."""
    pool, name = making.pool, making.entry.image
    image_id = pool.image_id(name)
    if image_id is None:
        raise errors.TakenOver(
            "removed while it was made",
            operation="create",
            pool=str(pool),
            image=name,
        )
    token = {journal.MADE_KEY: making.entry.token}
    pool.set_metadata(image_id, {**metadata, **token})
    return image_id
