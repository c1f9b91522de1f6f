# SPDX-License-Identifier: Apache-2.0

"""Flow: make a snapshot of a disk, an image of its own, without a copy.

A snap of the disk is cloned, however big the disk is: ``begin``, ``snap``,
``publish``. What the clone shares with the disk is copied later, in the
background, by :mod:`nova_rbd_backend.storage.detaching`. Between two steps a
process may die: the pool's journal leads the next one to what it left.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping

from nova_rbd_backend import errors, names
from nova_rbd_backend.storage import journal, sources, trash
from nova_rbd_backend.storage.cluster import once_more
from nova_rbd_backend.storage.pool import Pool

#: As Glance's rbd store calls its own (glance_store, _drivers/rbd.py).
SNAP = "snap"
#: Makes it safe to be deleted at any time until it is detached. Glance has
#: librbd remove an image before it tries the trash. With a snap of ours it is
#: told that there are snaps (ENOTEMPTY) and goes on, without one that the
#: image is open (EBUSY), which its user gets as a conflict (glance_store,
#: _drivers/rbd.py; 16.2, PreRemoveRequest.cc).
HOLD = "nova-rbd-detaching"


@dataclasses.dataclass(frozen=True)
class Making:
    """A snapshot between begin and publish."""

    disk_pool: Pool
    disk: str
    creation: journal.Entry

    @property
    def source(self) -> journal.Source:
        assert self.creation.source is not None
        return self.creation.source


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """:ivar location: for Glance"""

    image: str
    image_id: str
    size_bytes: int
    location: names.GlanceLocation
    detachment: journal.Entry


@contextlib.contextmanager
def sole_maker(pool: Pool, glance_id: str) -> Iterator[None]:
    """Let this process know that the snapshot is being worked on.

    :raises BeingCreated: another thread makes it
    """
    with journal.sole_maker(pool, names.snapshot_image(glance_id)):
        yield


@once_more
def begin(pool: Pool, disk_pool: Pool, disk: str, glance_id: str) -> Making:
    """Remember what is going to be made; the disk is not touched yet.

    :param pool: where the snapshot goes
    :raises ImageNotFound: there is no such disk
    """
    disk_id = disk_pool.image_id(disk)
    if disk_id is None:
        raise errors.ImageNotFound(
            operation="make a snapshot of", pool=str(disk_pool), image=disk
        )
    creation = journal.begin_creation(
        pool, names.snapshot_image(glance_id), sources.new(disk_pool, disk_id)
    )
    return Making(disk_pool, disk, creation)


@once_more
def snap(making: Making) -> None:
    """Keep the disk's content as it is now. Takes some 30 ms."""
    sources.make(making.disk_pool, making.source)


def publish(
    pool: Pool, making: Making, metadata: Mapping[str, str]
) -> Snapshot:
    """Make the snapshot's image under its own name, whole.

    :raises ImageExists: there is one already
    """
    creation = making.creation
    draft = creation.draft
    pool.clone(making.disk_pool, making.disk, making.source.snap, draft)
    with pool.open(draft, read_only=False) as image:
        image.create_snap(SNAP)
        # Clients that make clones of the old format need it.
        image.protect_snap(SNAP)
        # Not later: made when Glance knows the image, it would be open
        # without for as long as that takes (50 to 130 ms).
        image.create_snap(HOLD)
        image_id = image.image_id
        size_bytes = image.size_bytes()
    # The disk's librbd options are no business of what is booted from it.
    pool.set_metadata(image_id, metadata, conf={})
    detachment = journal.begin_detachment(pool, creation, image_id)
    pool.publish(draft, image_id, creation.image)
    journal.drop(pool, creation)
    return Snapshot(
        creation.image,
        image_id,
        size_bytes,
        names.GlanceLocation(
            pool.cluster.fsid(), str(pool), creation.image, SNAP
        ),
        detachment,
    )


def undo(pool: Pool, making: Making) -> None:
    """Remove what an attempt has made until now, published or not."""
    trash.settle(pool, making.creation)
    for entry in journal.detachments(pool):
        if entry.source == making.source:
            withdraw(pool, entry)


def withdraw(pool: Pool, detachment: journal.Entry) -> None:
    """Remove a snapshot that Glance does not know; gone: done."""
    if pool.listed_id(detachment.image) == detachment.image_id:
        trash.discard(pool, detachment.image)
    if detachment.source is not None:
        sources.remove(pool, detachment.source)
    journal.drop(pool, detachment)
