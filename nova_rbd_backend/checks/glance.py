# SPDX-License-Identifier: Apache-2.0

"""May Glance's Ceph user do with a snapshot what Glance has to do?

Checked only where that user's keyring can be read, so not by nova-compute. The
check tries it on a snapshot of our own, which still shares data with its disk.
"""

import contextlib
import dataclasses
import socket
import uuid
from collections.abc import Iterator

from nova_rbd_backend import errors
from nova_rbd_backend.ceph import cluster
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.checks.ceph import PROBE_PREFIX
from nova_rbd_backend.checks.steps import Step
from nova_rbd_backend.settings import Settings
from nova_rbd_backend.storage.snapshots.make import SNAP

_PROBE_BYTES = 4 << 20


def steps(
    settings: Settings, user: str, needs: tuple[str, ...] = ()
) -> Iterator[Step]:
    """Yield the check that Glance's user can read and delete snapshots.

    :param user: Glance's, without "client."
    """
    yield Step(
        "Glance's rights for snapshots", lambda: check(settings, user), needs
    )


def check(settings: Settings, user: str) -> None:
    """Prove that Glance's user can read a snapshot and delete it. Blocks.

    :param user: Glance's, without "client."
    :raises errors.Error: one line with what is missing and how to mend it
    """
    ours = cluster.connect(settings.cluster)
    glance = cluster.connect(dataclasses.replace(settings.cluster, user=user))
    glance.fsid()
    tried = set()
    for each in settings.classes:
        at = (each.pool, each.image_options.data_pool)
        if at not in tried:
            tried.add(at)
            disks = Pool(ours, each.pool, options=each.image_options)
            _check(ours, glance, settings.snapshot_pool, disks)


def _check(
    ceph: cluster.Cluster, glance: cluster.Cluster, snapshots: str, disks: Pool
) -> None:
    pool = Pool(ceph, snapshots)
    where = repr(str(disks))
    if disks.options.data_pool:
        where += f" with data in {disks.options.data_pool!r}"
    with _snapshot(disks, pool) as name:
        for verb, act in (("read", _read), ("delete", _delete)):
            try:
                act(Pool(glance, snapshots), name)
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
    disk = f"{PROBE_PREFIX}.{socket.gethostname()}.{uuid.uuid4()}"
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
