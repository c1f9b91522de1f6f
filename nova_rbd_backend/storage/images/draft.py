# SPDX-License-Identifier: Apache-2.0

"""Flow: make an image under a draft's name, and publish it when it is whole.

So an image that has its own name is whole, for this backend, the in-tree one
and an operator. If a process is killed at any point, the pool's journal leads
another one to the draft, which finishes or undoes it.
"""

import contextlib
import functools
import os
from collections.abc import Iterator, Mapping

from nova_rbd_backend import errors
from nova_rbd_backend.ceph import transfer
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


def make_from_file(
    pool: Pool,
    name: str,
    path: str,
    size_bytes: int | None,
    progress: transfer.Progress | None,
    workers: int,
) -> int:
    """Make an image with the bytes of a local raw file.

    :param name: a draft's
    :param size_bytes: None, or less than the file's: the file's size
    :returns: bytes written
    """
    file_bytes = os.path.getsize(path)
    pool.create(name, max(file_bytes, size_bytes or 0))
    with pool.open(name, read_only=False) as image:
        return transfer.import_file(image, path, progress, workers)


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
