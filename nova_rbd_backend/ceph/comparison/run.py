# SPDX-License-Identifier: Apache-2.0

"""Compare all layouts, and clean up after a comparison."""

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
    name = clones.clone_name(disk.name)
    with disk._reach("list clones"):
        children = list(disk._image.list_children2())
    for child in children:
        for lock in pool.holders.locks(child["id"]):
            pool.holders.break_lock(child["id"], lock)
        if child["trash"]:
            try:
                pool.trash.remove(child["id"], force=True)
            except errors.MoveUnfinished:
                pool.trash.finish_move(child["id"], name)
                pool.trash.remove(child["id"], force=True)
    for left in (name, clones.draft_name(disk.name)):
        pool.remove(left)
