# SPDX-License-Identifier: Apache-2.0

"""Flow: make a snapshot of a disk, an image of its own, without a copy.

A snap of the disk is cloned, however big the disk is: ``begin``, ``snap``,
``publish``. What the clone shares with the disk is copied later, in the
background, by :mod:`.detach`. A process may die between two steps: the pool's
journal leads the next one to what it left.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping

from nova_rbd_backend import errors, names
from nova_rbd_backend.ceph.cluster import once_more
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.images import source_snap
from nova_rbd_backend.storage.images.discard import discard
from nova_rbd_backend.storage.images.draft import finishing, settle

#: The name that Glance's rbd store gives its own (glance_store, _drivers/rbd).
SNAP = "snap"
#: A snap that makes a snapshot safe to be deleted until it is detached. Glance
#: has librbd remove an image before it tries the trash. With this snap librbd
#: reports that there are snaps (ENOTEMPTY), and Glance goes on; without it,
#: that the image is open (EBUSY), which Glance's user gets as a conflict
#: (glance_store, _drivers/rbd.py; 16.2, PreRemoveRequest.cc).
HOLD = "nova-rbd-detaching"


@dataclasses.dataclass(frozen=True)
class SnapshotAttempt:
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
    """Let this process know that the snapshot is being made.

    :raises BeingCreated: another thread makes it
    """
    with journal.sole_maker(pool, names.snapshot_image(glance_id)):
        yield


@once_more
def begin(
    pool: Pool, disk_pool: Pool, disk: str, glance_id: str
) -> SnapshotAttempt:
    """Record what is going to be made; the disk is not changed yet.

    :param pool: where the snapshot is to be
    :raises ImageNotFound: there is no such disk
    """
    disk_id = disk_pool.directory.image_id(disk)
    if disk_id is None:
        raise errors.ImageNotFound(
            operation="make a snapshot of", pool=str(disk_pool), image=disk
        )
    creation = journal.begin_creation(
        pool,
        names.snapshot_image(glance_id),
        source_snap.new(disk_pool, disk_id),
    )
    return SnapshotAttempt(disk_pool, disk, creation)


@once_more
def snap(attempt: SnapshotAttempt) -> None:
    """Keep the disk's content as it is now. Takes about 30 ms."""
    source_snap.make(attempt.disk_pool, attempt.source)


def publish(
    pool: Pool, attempt: SnapshotAttempt, metadata: Mapping[str, str]
) -> Snapshot:
    """Make the snapshot's image whole, under its own name.

    :raises ImageExists: there is such an image already
    """
    creation = attempt.creation
    with finishing(pool, creation) as begun:
        pool.clone(
            attempt.disk_pool, attempt.disk, attempt.source.snap, begun.name
        )
        with pool.open(begun.name, read_only=False) as image:
            image.create_snap(SNAP)
            # Clients that make clones of the old format need it.
            image.protect_snap(SNAP)
            # Not later: once Glance knows the image, it would be open without
            # this snap for as long as making it takes (50 to 130 ms).
            image.create_snap(HOLD)
            image_id = begun.image_id = image.image_id
            size_bytes = image.size_bytes()
        # The disk's librbd options do not hold for what is booted from it.
        pool.headers.set_metadata(image_id, metadata, conf={})
        detachment = journal.begin_detachment(pool, creation, image_id)
    return Snapshot(
        creation.image,
        image_id,
        size_bytes,
        names.GlanceLocation(
            pool.cluster.fsid(), str(pool), creation.image, SNAP
        ),
        detachment,
    )


def undo(pool: Pool, attempt: SnapshotAttempt) -> None:
    """Remove what an attempt has made until now, published or not."""
    settle(pool, attempt.creation)
    for entry in journal.detachments(pool):
        if entry.source == attempt.source:
            remove(pool, entry)


def remove(pool: Pool, detachment: journal.Entry) -> None:
    """Remove a snapshot that Glance does not know. Removed already: done."""
    if pool.directory.listed_id(detachment.image) == detachment.image_id:
        discard(pool, detachment.image)
    if detachment.source is not None:
        source_snap.remove(pool, detachment.source)
    journal.end(pool, detachment)
