# SPDX-License-Identifier: Apache-2.0

"""The snaps of instances' disks that snapshots are cloned from.

Such a snap is needed until its clone is detached. If it is removed before
that, librbd hides it, and removes it with its last clone (clone v2).
"""

import contextlib
import uuid

from nova_rbd_backend import errors
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage import fencing
from nova_rbd_backend.storage.journal import Source


def new(pool: Pool, image_id: str) -> Source:
    """Return a new name for a snap of the image."""
    return Source(str(pool), image_id, f"nova-rbd-{uuid.uuid4().hex[:12]}")


def make(pool: Pool, source: Source) -> None:
    """Make the snap, while a guest that has the disk open writes on.

    The caller has fenced the disk's dead clients, over the same connection.

    :raises ImageNotFound: the disk is gone
    """
    # Fencing here would keep the guest frozen for longer.
    with pool.for_image_in_use().open(
        image_id=source.image_id, read_only=False
    ) as disk:
        disk.create_snap(source.snap)


def remove(near: Pool, source: Source) -> None:
    """Remove the snap, unless the snap, its disk or its pool is gone.

    :param near: a pool of the same cluster
    """
    name, _, namespace = source.pool.partition("/")
    with (
        contextlib.suppress(errors.NotFound),
        fencing.fenced(
            near.beside(name, namespace).for_image_in_use(),
            image_id=source.image_id,
            frees=True,
        ) as disk,
    ):
        disk.remove_snap(source.snap)
