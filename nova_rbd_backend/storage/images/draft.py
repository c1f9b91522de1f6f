# SPDX-License-Identifier: Apache-2.0

"""Flow: make an image under a draft's name, and publish it when it is whole.

So an image that has its own name is whole, for this backend, the in-tree one
and an operator. If a process is killed at any point, the pool's journal leads
another one to the draft, which finishes or undoes it.
"""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping

from nova_rbd_backend import errors, names
from nova_rbd_backend.ceph import error_map, qemu_img, transfer
from nova_rbd_backend.ceph.incoming import Incoming
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage import fencing, journal
from nova_rbd_backend.storage.images import source_snap
from nova_rbd_backend.storage.images.discard import discard


class Draft:
    """An image that is being made.

    :ivar entry: its creation
    :ivar name: the draft's name, until the image is published
    :ivar image_id: looked up on first use, unless the caller sets it
    """

    def __init__(self, pool: Pool, entry: journal.Entry):
        self.name = entry.draft
        self._pool = pool
        self.entry = entry

    @functools.cached_property
    def image_id(self) -> str:
        """:raises TakenOver: another process has removed the draft"""
        found = self._pool.directory.image_id(self.name)
        if found is None:
            raise errors.TakenOver(
                "the draft is gone",
                operation="create",
                pool=str(self._pool),
                image=self.entry.image,
            )
        return found

    @functools.cached_property
    def has_journal(self) -> bool:
        """Asked once, as nobody changes the features of a draft."""
        return self._pool.headers.has_journal(self.image_id)

    def set_metadata(
        self, values: Mapping[str, str], conf: Mapping[str, str] | None = None
    ) -> None:
        """See Pool.set_metadata."""
        self._pool.set_metadata(
            self.image_id, values, conf, has_journal=self.has_journal
        )

    def publish(self) -> None:
        """See Pool.publish."""
        self._pool.publish(
            self.name,
            self.image_id,
            self.entry.image,
            has_journal=self.has_journal,
        )

    def replace(self, image_id: str, retention_seconds: int) -> None:
        """Discard the image that has the name, as the draft is whole.

        If this process dies before it publishes the draft, another one does.

        :param image_id: of the image that the caller has looked at
        :param retention_seconds: how long the trash must keep the image
        :raises DiskBusy: the image is in use; it stays
        """
        self.entry = journal.record_whole(self._pool, self.entry)
        discard(
            self._pool, self.entry.image, retention_seconds, image_id=image_id
        )


@contextlib.contextmanager
def draft(pool: Pool, name: str) -> Iterator[Draft]:
    """Make an image: the block fills the draft, and its end publishes it.

    If the block raises, the draft is removed, now or by another process.

    :raises ImageExists: the name is taken
    :raises TakenOver: another process has removed the draft
    """
    with finishing(pool, journal.begin_creation(pool, name)) as begun:
        yield begun


@contextlib.contextmanager
def finishing(pool: Pool, entry: journal.Entry) -> Iterator[Draft]:
    """Do the same for a creation that has an entry already."""
    begun = Draft(pool, entry)
    try:
        yield begun
        begun.publish()
    except (errors.ClusterUnreachable, errors.OperationTimedOut):
        # The entry stays for another process, or for this one when Ceph
        # answers again: to undo it now would wait for more time-outs.
        raise
    except BaseException:
        # If it cannot be undone now, the entry stays, too.
        with contextlib.suppress(errors.StorageError):
            settle(pool, begun.entry)
        raise
    journal.end(pool, begun.entry)


@dataclasses.dataclass(frozen=True)
class Packed:
    """What a local file is that is not raw.

    :ivar form: its format, as QEMU names it
    :ivar size_bytes: of the virtual disk
    """

    form: str
    size_bytes: int


def make_from_file(
    pool: Pool,
    name: str,
    path: str,
    size_bytes: int | None,
    progress: transfer.Progress | None,
    workers: int,
    packed: Packed | None = None,
) -> int:
    """Make an image with the bytes of a local file.

    :param name: a draft's
    :param size_bytes: None, or less than the disk in the file: that size
    :param packed: None: the file is raw
    :returns: bytes written, or, of a file that is not raw, bytes read
    :raises UnreadableFile: a file that is not raw is damaged
    """
    file_bytes = os.path.getsize(path)
    disk_bytes = packed.size_bytes if packed else file_bytes
    pool.create(name, max(disk_bytes, size_bytes or 0))
    if packed:
        _convert(pool, name, path, packed, progress)
        return file_bytes
    with pool.open(name, read_only=False) as image:
        return transfer.import_file(image, path, progress, workers)


def make_from_incoming(
    pool: Pool,
    name: str,
    incoming: Incoming,
    progress: transfer.Progress | None,
    workers: int,
) -> int:
    """Make an image with bytes that come meanwhile; return those written.

    :param name: a draft's
    """
    try:
        pool.create(name, incoming.size_bytes)
        with pool.open(name, read_only=False) as image:
            return transfer.import_incoming(image, incoming, progress, workers)
    finally:
        incoming.close()


def _convert(
    pool: Pool,
    name: str,
    path: str,
    packed: Packed,
    progress: transfer.Progress | None,
) -> None:
    settings, operation = pool.cluster.settings, "write to"
    target = names.ImagePath(pool.name, pool.namespace, name).for_qemu(
        settings.user,
        settings.conf_file,
        client_mount_timeout=settings.connect_timeout_seconds,
        rados_mon_op_timeout=settings.operation_timeout_seconds,
        rados_osd_op_timeout=settings.operation_timeout_seconds,
    )

    def told(done_bytes: int) -> None:
        if progress is not None:
            progress(done_bytes)

    try:
        qemu_img.copy(path, packed.form, target, packed.size_bytes, told)
    except errors.UnreadableFile:
        raise
    except errors.ConversionError as error:
        # Another process may have taken this one for dead. It then blocklists
        # qemu-img, and removes the draft.
        pool.directory.existing_id(name, operation)
        text = str(error)
        raise error_map.class_of(text)(
            text, operation=operation, pool=str(pool), image=name
        ) from error


def settle_attempts(pool: Pool, name: str) -> bool:
    """Settle all attempts to make an image; return whether one was undone."""
    attempts = journal.creations(pool, f"{name}.")
    undone = [settle(pool, entry) for entry in attempts if entry.image == name]
    return any(undone)


def settle(pool: Pool, entry: journal.Entry) -> bool:
    """Finish or undo an attempt to make an image; return if it was undone."""
    directory = pool.directory
    if entry.whole and not directory.listed_id(entry.image):
        # The process died after it had discarded the old image.
        draft_id = directory.listed_id(entry.draft)
        if draft_id is not None:
            # librbd, which renames an image with a journal, breaks no lock of
            # a dead client (see Connection).
            fencing.fence(pool, {entry.draft: draft_id})
            pool.publish(entry.draft, draft_id, entry.image)
    directory.finish_publishing(entry.draft, entry.image)
    # If its maker is alive, it cannot publish the draft any more.
    taken = directory.take_away(entry.draft)
    # A process killed in rbd_create leaves an rbd_id object that the directory
    # does not list.
    half_made = taken is not None or directory.exists(entry.draft)
    if half_made:
        # Even if its maker is alive, because Nova has given up that attempt.
        discard(pool, taken or entry.draft, spare_living=False)
    if entry.source and directory.listed_id(entry.image) is None:
        source_snap.remove(pool, entry.source)
    journal.end(pool, entry)
    return half_made


def free_name(pool: Pool, name: str) -> bool:
    """Free the name of an image that is not whole; return whether it existed.

    The image was half-way into the trash, or a process died in rbd_create.
    """
    directory = pool.directory
    taken = directory.exists(name) or directory.listed_id(name) is not None
    if taken:
        discard(pool, name)
    return taken
