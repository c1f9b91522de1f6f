# SPDX-License-Identifier: Apache-2.0

"""Flow: make an instance's disk, or grow the disk that exists.

What an earlier attempt left is finished or undone first.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping

from nova_rbd_backend import errors, names
from nova_rbd_backend import metadata as facts_of
from nova_rbd_backend.ceph import luks, transfer
from nova_rbd_backend.ceph.cluster import once_more
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage import fencing, journal
from nova_rbd_backend.storage.images.draft import (
    Packed,
    draft,
    free_name,
    make_from_file,
    settle_attempts,
)


@dataclasses.dataclass(frozen=True)
class Provisioned:
    """A disk, and what was done to it."""

    name: str
    size_bytes: int  # as the guest sees it
    created: bool  # False: it existed already, and was whole
    grown: bool
    undone: bool  # a half-made image of an earlier attempt was removed
    bytes_written: int
    seconds: float


def is_whole(pool: Pool, name: str) -> bool:
    """Return whether an image exists, and is not half-way into the trash.

    An image that has its own name was made to its end.
    """
    return whole_image_id(pool, name) is not None


@once_more
def whole_image_id(pool: Pool, name: str) -> str | None:
    """Return the id of a whole image; None: it is not whole, or missing."""
    listed_id = pool.directory.listed_id(name)
    if listed_id is None:
        return None
    image_id = pool.directory.image_id(name)
    if image_id is None:
        # A process died after its move to the trash had taken the name away
        # from this image, which was not meant.
        return pool.restore_id(name)
    if image_id != listed_id:
        return None
    if journal.deletion(pool, image_id) is None:
        return image_id
    # The entry alone proves nothing: a delete may have been refused because
    # the disk was busy, or an operator may have restored the disk.
    return image_id if pool.trash.get(image_id) is None else None


@once_more
def clone_disk(
    pool: Pool,
    name: str,
    parent: names.GlanceLocation | names.SnapPath,
    size_bytes: int | None = None,
    metadata: Mapping[str, str] | None = None,
    flatten: bool = False,
    old_kept_seconds: int | None = None,
    passphrase: bytes | None = None,
) -> Provisioned:
    """Make a disk as a clone of an image's snap, and grow it.

    :param size_bytes: None, or less than the parent's: the parent's size
    :param flatten: give it a copy of the data, which takes long
    :param old_kept_seconds: see _provision
    :param passphrase: encrypt it; the parent is a base with room for that
    :raises NotEncrypted: the disk exists and is not encrypted, as it should be
    :raises InvalidLocation: the parent is on another cluster
    :raises NotFound: there is no such parent
    """
    snap = _snap_path(pool, parent)
    parent_pool = pool.beside(snap.pool, snap.namespace)

    def make(draft_name: str) -> int:
        pool.clone(parent_pool, snap.image, snap.snap, draft_name)
        if flatten and passphrase is None:
            with pool.open(draft_name, read_only=False) as disk:
                disk.flatten()
        return 0

    def encrypt(draft_name: str) -> int:
        assert passphrase is not None
        return _encrypt(pool, draft_name, passphrase, flatten)

    return _provision(
        *(pool, name, make, size_bytes, metadata, old_kept_seconds),
        encrypt=None if passphrase is None else encrypt,
    )


@once_more
def is_deep(
    pool: Pool, parent: names.GlanceLocation | names.SnapPath, limit: int
) -> bool:
    """Return whether a clone would have more parents, one above the other.

    Sends no request unless the parent is a snapshot.

    :raises InvalidLocation: the parent is on another cluster
    """
    snap = _snap_path(pool, parent)
    # Only snapshots are clones themselves. To ask about other parents would
    # cost each boot a request.
    if not names.is_snapshot(snap.image):
        return False
    parent_pool = pool.beside(snap.pool, snap.namespace)
    image_id = parent_pool.directory.image_id(snap.image)
    return image_id is not None and parent_pool.depth(image_id) >= limit


def _snap_path(
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
    old_kept_seconds: int | None = None,
    packed: Packed | None = None,
) -> Provisioned:
    """Make a disk with the bytes of a local file. Takes long.

    :param size_bytes: None, or less than the disk in the file: that size
    :param packed: what the file is; None: raw
    :raises UnreadableFile: a file that is not raw is damaged
    :param old_kept_seconds: see _provision
    """

    def make(draft_name: str) -> int:
        return make_from_file(
            *(pool, draft_name, path, size_bytes, progress, workers, packed)
        )

    return _provision(pool, name, make, size_bytes, metadata, old_kept_seconds)


@once_more
def filled_disk(
    pool: Pool,
    name: str,
    size_bytes: int,
    fill: Callable[[str], None],
    metadata: Mapping[str, str] | None = None,
) -> Provisioned:
    """Make a disk whose bytes the caller writes.

    :param fill: called with the draft's name; writes to that empty image
    """

    def make(draft_name: str) -> int:
        pool.create(draft_name, size_bytes)
        fill(draft_name)
        return 0

    return _provision(pool, name, make, size_bytes, metadata)


@once_more
def grow(pool: Pool, name: str, size_bytes: int) -> bool:
    """Grow a disk that is smaller than this; return whether it was.

    :raises ImageNotFound: there is no such disk
    """
    image_id = pool.directory.existing_id(name, "grow")
    offset = _data_offset(pool, image_id)
    return _grow(pool, name, image_id, size_bytes, offset)[1]


@once_more
def guest_bytes(pool: Pool, name: str) -> int:
    """Return the size of a disk as the guest sees it.

    :raises ImageNotFound: there is no such disk
    """
    image_id = pool.directory.existing_id(name, "get the size")
    return pool.headers.size_bytes(image_id) - _data_offset(pool, image_id)


def _data_offset(pool: Pool, image_id: str) -> int:
    return facts_of.data_offset(pool.headers.metadata(image_id))


def _grow(
    pool: Pool,
    name: str,
    image_id: str,
    wanted_bytes: int | None,
    offset: int,
) -> tuple[int, bool]:
    """Return the size in bytes, and whether it changed.

    :param offset: where its data begins; neither size counts what is before
    """
    size_bytes = pool.headers.size_bytes(image_id) - offset
    if wanted_bytes is None or size_bytes >= wanted_bytes:
        return size_bytes, False
    if not names.is_draft(name):
        # Others may have it open.
        fencing.fence_dead(pool, {name: image_id})
    with pool.open(name, read_only=False, image_id=image_id) as disk:
        disk.resize(wanted_bytes + offset)
    return wanted_bytes, True


def _provision(
    pool: Pool,
    name: str,
    make: Callable[[str], int],
    size_bytes: int | None,
    metadata: Mapping[str, str] | None,
    old_kept_seconds: int | None = None,
    encrypt: Callable[[str], int] | None = None,
) -> Provisioned:
    """Make the disk, or grow it; ``make`` returns the bytes written.

    :param encrypt: encrypts what was made; returns where the data begins
    :param old_kept_seconds: make it in any case, and replace the disk that
        exists, which the trash must keep for so long
    """
    started = time.monotonic()
    bytes_written = 0
    with journal.sole_maker(pool, name):
        # Attempts of a living host too, which then finds its draft gone: Nova
        # lets one host work on an instance, and has given up the other one.
        undone = settle_attempts(pool, name)
        image_id = whole_image_id(pool, name)
        made = image_id is None or old_kept_seconds is not None
        if image_id is not None and old_kept_seconds is None:
            offset = _data_offset(pool, image_id)
            if encrypt and not offset:
                raise errors.NotEncrypted(
                    "it exists, and is not encrypted",
                    operation="use",
                    pool=str(pool),
                    image=name,
                )
            size, grown = _grow(pool, name, image_id, size_bytes, offset)
        else:
            if image_id is None:
                undone = free_name(pool, name) or undone
            with draft(pool, name) as begun:
                bytes_written = make(begun.name)
                facts, offset = dict(metadata or {}), 0
                if encrypt:
                    offset = encrypt(begun.name)
                    facts |= facts_of.describe_encryption(offset)
                size, grown = _grow(
                    pool, begun.name, begun.image_id, size_bytes, offset
                )
                begun.set_metadata(facts, pool.options.conf_metadata)
                if image_id is not None:
                    begun.replace(image_id, old_kept_seconds or 0)
    return Provisioned(
        name,
        size,
        created=made,
        grown=grown,
        undone=undone,
        bytes_written=bytes_written,
        seconds=time.monotonic() - started,
    )


def _encrypt(
    pool: Pool, draft_name: str, passphrase: bytes, flatten: bool
) -> int:
    """Encrypt a clone of a base that has room for it; see luks.encrypt.

    :raises NotSupported: the base was made for disks of another layout
    """
    with pool.open(draft_name, read_only=False) as disk:
        # librbd has copied the metadata of the base.
        room = disk.metadata().get(facts_of.ROOM)
        if room != str(luks.data_offset(disk)):
            raise errors.NotSupported(
                f"its base has {room or 'no'} bytes of room for a header, "
                f"which needs {luks.data_offset(disk)}",
                operation="encrypt",
                pool=str(pool),
                image=draft_name,
            )
        offset = luks.encrypt(disk, passphrase)
        if flatten:
            disk.decrypt(passphrase)
            disk.flatten()
        return offset
