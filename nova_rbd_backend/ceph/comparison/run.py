# SPDX-License-Identifier: Apache-2.0

"""Compare all layouts, and clean up after a comparison."""

import contextlib

import rbd

from nova_rbd_backend import errors
from nova_rbd_backend.ceph.comparison import clones, images, locks, pools
from nova_rbd_backend.ceph.image import Image
from nova_rbd_backend.ceph.pool import Pool

#: Layouts of which librbd says nothing, and who reads them.
NOT_COMPARED = {
    "HEADER_CHANGED": "librbd, which answers what it cannot read as well",
    "key_type": "cephx; the check of the libvirt secret logs in with the key",
    "no_operation": "mirror daemons, which do nothing then",
}


def librbd_version() -> str:
    """Return the version of librbd's interface. librbd: rbd_version."""
    return ".".join(map(str, rbd.RBD().version()))


def compare(pool: Pool, disk: Image, snap: str) -> None:
    """Compare all layouts on an image that only the caller knows. Blocks.

    Makes a clone of it, and removes the clone. If this process dies, or this
    raises an error, remove_clone() does so.

    :param disk: the image, open for writing
    :param snap: its only snap, which has no clones yet
    :raises LayoutDiffers: names the first layout that differs
    """
    pools.compare(pool)
    images.compare(pool, disk)
    clone_id = clones.publish(pool, disk, snap)
    name = clones.clone_name(disk.name)
    with pool.open(name, read_only=False) as clone:
        clones.compare(pool, clone, clone_id)
        locks.compare(pool, clone)
    clones.trash(pool, name, clone_id)


def remove_clone(pool: Pool, disk: Image) -> None:
    """Remove what is left of the clone that compare() has made.

    A dead process may have left it locked; it has no data.
    """
    left = (clones.clone_name(disk.name), clones.draft_name(disk.name))
    for name in left:
        # What is read here may have another layout; librbd knows it.
        with contextlib.suppress(errors.StorageError):
            if image_id := pool.directory.image_id(name):
                _break_locks(pool, image_id)
        pool.remove(name)
    with pool._access.reach("list the trash") as ioctx:
        moved = [
            (each["id"], each["name"])
            for each in rbd.RBD().trash_list(ioctx)
            if each["name"] in left
        ]
    for image_id, name in moved:
        _break_locks(pool, image_id)
        try:
            pool.trash.remove(image_id, force=True)
        except errors.MoveUnfinished:
            pool.trash.finish_move(image_id, name)
            pool.trash.remove(image_id, force=True)


def _break_locks(pool: Pool, image_id: str) -> None:
    for lock in pool.holders.locks(image_id):
        pool.holders.break_lock(image_id, lock)
