# SPDX-License-Identifier: Apache-2.0

"""Does Glance's Ceph user have the rights on a snapshot that Glance needs?

This is checked only where that user's keyring can be read, and so not by
nova-compute. The check makes a snapshot, which still shares data with its
disk, and tries to read and delete it.
"""

import contextlib
import dataclasses
from collections.abc import Iterator

from nova_rbd_backend import errors
from nova_rbd_backend.ceph import cluster
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.checks import ceph
from nova_rbd_backend.settings import Settings
from nova_rbd_backend.storage.snapshots.make import SNAP


def check(settings: Settings, user: str) -> str | None:
    """Prove that Glance's user can read a snapshot and delete it. Blocks.

    :param user: Glance's, without "client."
    :returns: why this cannot be proved now; None: it is proved
    :raises errors.Error: one line with what is missing and how to mend it
    """
    ours = cluster.connect(settings.cluster)
    glance = cluster.connect(dataclasses.replace(settings.cluster, user=user))
    glance.fsid()
    tried = set()
    for each in settings.classes:
        pools = (each.pool, each.image_options.data_pool)
        if pools not in tried:
            tried.add(pools)
            disks = Pool(ours, each.pool, options=each.image_options)
            if doubt := _try(disks, glance, settings.snapshot_pool):
                return doubt
    return None


def _try(disks: Pool, glance: cluster.Cluster, snapshots: str) -> str | None:
    ours, theirs = disks.beside(snapshots), Pool(glance, snapshots)
    if full := ceph.fullness(disks) or ceph.fullness(ours):
        return full
    try:
        with _snapshot(disks, ours) as name:
            try:
                _check(theirs, name, disks)
            except errors.OperationTimedOut as error:
                return ceph.why_silent(theirs, error)
    except errors.OperationTimedOut as error:
        return ceph.why_silent(disks, error)
    return None


def _check(pool: Pool, name: str, disks: Pool) -> None:
    """Read and delete a snapshot, in a pool that Glance's user has opened."""
    verb = "read"
    try:
        with pool.open(name, snap=SNAP) as image:
            image.read(0, 5)
        verb = "delete"
        # glance_store's rbd driver deletes an image in these steps.
        with pool.open(name, read_only=False) as image:
            image.remove_snap(SNAP)
        pool.remove(name)
    except errors.NotPermitted as error:
        raise errors.ConfigError(
            f"client.{pool.cluster.settings.user} may not {verb} a snapshot "
            f"in pool {str(pool)!r} of a disk in {ceph.shown(disks)}, so "
            "Glance accepts no snapshot's location, or cannot delete it: give "
            "that user the caps that etc/ceph/client.glance.keyring lists"
        ) from error


@contextlib.contextmanager
def _snapshot(disks: Pool, pool: Pool) -> Iterator[str]:
    """Lend a snapshot of a new disk; remove both afterwards."""
    disk = ceph.probe_name()
    name = f"{disk}.snapshot"
    disks.create(disk, ceph.PROBE_BYTES)
    try:
        with disks.open(disk, read_only=False) as image:
            image.write(b"probe", 0)
            image.create_snap(SNAP)
        pool.clone(disks, disk, SNAP, name)
        with pool.open(name, read_only=False) as image:
            image.create_snap(SNAP)
            image.protect_snap(SNAP)
        yield name
    finally:
        _remove(pool, name)
        _remove(disks, disk)


def _remove(pool: Pool, name: str) -> None:
    """Remove what has been made of an image, even if it cannot be opened."""
    with (
        contextlib.suppress(errors.ImageNotFound),
        pool.open(name, read_only=False) as image,
    ):
        image.remove_snap(SNAP)
    pool.remove(name)
