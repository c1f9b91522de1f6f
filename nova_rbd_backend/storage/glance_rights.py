# SPDX-License-Identifier: Apache-2.0

"""May Glance's Ceph user do with a snapshot what Glance will have to?

Asked only where that user's keyring can be read, so not by nova-compute: it
is tried on a snapshot of our own, which still shares data with its disk.
"""

import contextlib
import dataclasses
import socket
import uuid
from collections.abc import Iterator

from nova_rbd_backend import errors
from nova_rbd_backend.storage import cluster, health
from nova_rbd_backend.storage.pool import Pool
from nova_rbd_backend.storage.snapshots import SNAP

_PROBE_BYTES = 4 << 20


def check(settings: health.Wanted, user: str) -> None:
    """Prove that it can read a snapshot and delete it. Blocks.

    :param user: Glance's, without "client."
    :raises errors.Error: one line with what is missing and how to mend it
    """
    ours = health.cluster_settings(settings)
    ceph = cluster.connect(ours)
    glance = cluster.connect(dataclasses.replace(ours, user=user))
    glance.fsid()
    tried = set()
    for each in settings.classes:
        at = (each.pool, each.image_options.data_pool)
        if at not in tried:
            tried.add(at)
            disks = ceph.pool(each.pool, options=each.image_options)
            _check(ceph, glance, settings.snapshot_pool, disks)


def _check(
    ceph: cluster.Cluster, glance: cluster.Cluster, snapshots: str, disks: Pool
) -> None:
    pool = ceph.pool(snapshots)
    where = repr(str(disks))
    if disks.options.data_pool:
        where += f" with data in {disks.options.data_pool!r}"
    with _snapshot(disks, pool) as name:
        for verb, act in (("read", _read), ("delete", _delete)):
            try:
                act(glance.pool(snapshots), name)
            except errors.NotPermitted as error:
                raise errors.ConfigError(
                    f"client.{glance.settings.user} may not {verb} a snapshot "
                    f"in pool {str(pool)!r} of a disk in {where}, so Glance "
                    "takes no snapshot's location, or cannot delete it: give "
                    "that user the caps that etc/ceph/client.glance.keyring "
                    "lists"
                ) from error


def _read(pool: Pool, name: str) -> None:
    with pool.open(name, snap=SNAP) as image:
        image.read(0, 5)


def _delete(pool: Pool, name: str) -> None:
    """As glance_store's rbd driver does."""
    with pool.open(name, read_only=False) as image:
        image.remove_snap(SNAP)
    pool.remove(name)


@contextlib.contextmanager
def _snapshot(disks: Pool, pool: Pool) -> Iterator[str]:
    """A snapshot of a new disk; both are gone afterwards."""
    disk = f"{health.PROBE_PREFIX}.{socket.gethostname()}.{uuid.uuid4()}"
    name = f"{disk}.snapshot"
    disks.create(disk, _PROBE_BYTES)
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
    with (
        contextlib.suppress(errors.ImageNotFound),
        pool.open(name, read_only=False) as image,
    ):
        image.remove_snap(SNAP)
    pool.remove(name)
