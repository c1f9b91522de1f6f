# SPDX-License-Identifier: Apache-2.0

"""Flow: make an image under a draft's name, and name it when it is whole.

An image that has its own name is whole, to this backend, to the in-tree one
and to an operator. A process may be killed at any point: the pool's journal
leads the next one to the draft, which it finishes or undoes.
"""

import contextlib
import functools
import os
from collections.abc import Iterator

from nova_rbd_backend import errors
from nova_rbd_backend.ceph import transfer
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.images import source_snap
from nova_rbd_backend.storage.images.discard import discard


class Draft:
    """An image that is being made.

    :ivar name: the draft's, until the image is whole
    :ivar image_id: looked up when it is first needed, unless it is set
    """

    def __init__(self, pool: Pool, entry: journal.Entry):
        self.name = entry.draft
        self._pool = pool
        self._entry = entry

    @functools.cached_property
    def image_id(self) -> str:
        """:raises TakenOver: another process has removed the draft"""
        found = self._pool.directory.image_id(self.name)
        if found is None:
            raise errors.TakenOver(
                "the draft is gone",
                operation="create",
                pool=str(self._pool),
                image=self._entry.image,
            )
        return found


@contextlib.contextmanager
def draft(pool: Pool, name: str) -> Iterator[Draft]:
    """Make an image: the block fills the draft, which is named at its end.

    What an error of the block leaves is removed, now or by the next process.

    :raises ImageExists: the name is taken
    :raises TakenOver: another process has removed the draft
    """
    with finishing(pool, journal.begin_creation(pool, name)) as begun:
        yield begun


@contextlib.contextmanager
def finishing(pool: Pool, entry: journal.Entry) -> Iterator[Draft]:
    """Do the same for a creation that is in the journal already."""
    begun = Draft(pool, entry)
    try:
        yield begun
        pool.directory.publish(begun.name, begun.image_id, entry.image)
    except BaseException:
        # What cannot be undone now stays in the journal for the next process.
        with contextlib.suppress(errors.StorageError):
            settle(pool, entry)
        raise
    journal.end(pool, entry)


def import_file(
    pool: Pool,
    name: str,
    path: str,
    size_bytes: int | None,
    progress: transfer.Progress | None,
    workers: int,
) -> int:
    """Make an image, at least as big as a local raw file, with its bytes.

    :param name: a draft's
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
    """Finish or undo one attempt to make an image.

    :returns: whether it was undone
    """
    half = pool.directory.listed_id(entry.draft) is not None
    if not half:
        pool.directory.finish_publishing(entry.draft, entry.image)
        # Killed inside rbd_create: an id object that no directory lists.
        half = pool.directory.exists(entry.draft)
    if half:
        # Even if its maker is alive: Nova has given that attempt up.
        discard(pool, entry.draft, spare_living=False)
    if (
        entry.source is not None
        and pool.directory.listed_id(entry.image) is None
    ):
        source_snap.remove(pool, entry.source)
    journal.end(pool, entry)
    return half


def free_name(pool: Pool, name: str) -> bool:
    """Free a name that leads to no whole image.

    The image was half-way into the trash, or a process died in rbd_create.

    :returns: whether the name was taken
    """
    if (
        not pool.directory.exists(name)
        and pool.directory.listed_id(name) is None
    ):
        return False
    discard(pool, name)
    return True
