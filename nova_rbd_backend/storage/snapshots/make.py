# SPDX-License-Identifier: Apache-2.0

"""Flow: make a snapshot of a disk, as an image of its own, without a copy.

The steps are ``begin``, ``snap`` and ``publish``: a snap of the disk is
cloned, however big the disk is. The data that the clone shares with the disk
is copied later, in the background, by :mod:`.detach`. If a process dies
between two steps, the pool's journal leads another one to what it left.
"""

import contextlib
import dataclasses
from collections.abc import Mapping

from nova_rbd_backend import errors, names
from nova_rbd_backend import metadata as facts_of
from nova_rbd_backend.ceph.cluster import once_more
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage import fencing, journal
from nova_rbd_backend.storage.images import source_snap
from nova_rbd_backend.storage.images.discard import discard
from nova_rbd_backend.storage.images.draft import finishing, settle

#: The snap of an image of Glance's rbd store (glance_store, _drivers/rbd).
SNAP = "snap"
#: A snap that allows Glance to delete a snapshot while it is being detached.
#: Glance has librbd remove an image before it tries the trash. With this snap
#: librbd reports that there are snaps (ENOTEMPTY), and Glance goes on. Without
#: it, librbd reports that the image is open (EBUSY), which Glance's user gets
#: as a conflict (glance_store, _drivers/rbd.py; 16.2, PreRemoveRequest.cc).
HOLD = "nova-rbd-detaching"
# A draft gets one other name, or two, and is gone then.
_ATTEMPTS = 4


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
    image: str
    image_id: str
    size_bytes: int
    location: names.GlanceLocation  # for Glance
    detachment: journal.Entry


def sole_maker(
    pool: Pool, glance_id: str
) -> contextlib.AbstractContextManager[None]:
    """Keep other threads of this process from making the same snapshot.

    :raises BeingCreated: another thread makes it
    """
    return journal.sole_maker(pool, names.snapshot_image(glance_id))


@once_more
def begin(
    pool: Pool, disk_pool: Pool, disk: str, glance_id: str
) -> SnapshotAttempt:
    """Record that a snapshot is being made; do not change the disk yet.

    :param pool: where the snapshot is made
    :raises ImageNotFound: there is no such disk
    :raises NotSupported: it is encrypted
    """
    disk_id = disk_pool.directory.existing_id(disk, "make a snapshot of")
    if facts_of.data_offset(disk_pool.headers.metadata(disk_id)):
        # Its data cannot be copied later, without the passphrase.
        raise errors.NotSupported(
            "it is encrypted",
            operation="make a snapshot of",
            pool=str(disk_pool),
            image=disk,
        )
    # This may wait, and opens the connection for snap(). The guest is not
    # frozen yet.
    fencing.fence_dead(disk_pool.for_image_in_use(), {disk: disk_id})
    creation = journal.begin_creation(
        pool,
        names.snapshot_image(glance_id),
        source_snap.new(disk_pool, disk_id),
    )
    return SnapshotAttempt(disk_pool, disk, creation)


@once_more
def snap(attempt: SnapshotAttempt) -> None:
    """Keep the disk's content as it is now. Takes about 30 ms.

    Fences no client: begin has done that.
    """
    source_snap.make(attempt.disk_pool, attempt.source)


def publish(
    pool: Pool, attempt: SnapshotAttempt, metadata: Mapping[str, str]
) -> Snapshot:
    """Make the snapshot's image whole, under its own name.

    If this fails, call :func:`undo` for the snap of the disk.

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
            # Not later, when Glance knows the image: it would be open without
            # this snap while the snap is made (50 to 130 ms).
            image.create_snap(HOLD)
            image_id = begun.image_id = image.image_id
            size_bytes = image.size_bytes()
        # The disk's librbd options are not for disks booted from it.
        begun.set_metadata(metadata, conf={})
        detachment = journal.begin_detachment(pool, creation, image_id)
    location = names.GlanceLocation(
        pool.cluster.fsid(), str(pool), creation.image, SNAP
    )
    return Snapshot(creation.image, image_id, size_bytes, location, detachment)


def undo(pool: Pool, attempt: SnapshotAttempt) -> None:
    """Remove what an attempt has made so far, published or not."""
    settle(pool, attempt.creation)
    for entry in journal.detachments(pool):
        if entry.source == attempt.source:
            remove(pool, entry)


def remove(pool: Pool, detachment: journal.Entry) -> None:
    """Remove a snapshot that Glance does not know, if it exists.

    :raises Conflict: it got another name each time; call this again
    """
    # If its maker died while it was published, it is a draft. Whoever works on
    # the entry of its creation may publish it or take it away at any moment.
    for _attempt in range(_ATTEMPTS):
        name = pool.directory.listed_name(detachment.image_id)
        if name is None or names.final_name(name) != detachment.image:
            break
        discard(pool, name, image_id=detachment.image_id)
    else:
        raise errors.Conflict(
            "it gets another name again and again",
            operation="delete",
            pool=str(pool),
            image=detachment.image,
        )
    if detachment.source is not None:
        source_snap.remove(pool, detachment.source)
    journal.end(pool, detachment)
