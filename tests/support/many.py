# SPDX-License-Identifier: Apache-2.0

"""Many clones, entries or trashed images at once, written as Ceph has them.

librbd takes some 20 ms to clone an image, and 30 ms to move one to the trash.
"""

import struct
from collections.abc import Iterable, Mapping

import rados

from nova_rbd_backend.ceph import layouts
from nova_rbd_backend.ceph.pool import Pool

_AT_ONCE = 2000


def write_entries(pool: Pool, key: str, entries: Mapping[str, bytes]) -> None:
    """Write omap entries of an object."""
    names = tuple(entries)
    ioctx = pool.cluster.connection().ioctx(pool.name, pool.namespace)
    for first in range(0, len(names), _AT_ONCE):
        some = names[first : first + _AT_ONCE]
        with rados.WriteOpCtx() as op:
            ioctx.set_omap(op, some, tuple(entries[name] for name in some))
            ioctx.operate_write_op(op, key)


def remove_entries(pool: Pool, key: str, names: Iterable[str]) -> None:
    """Remove omap entries of an object."""
    ioctx = pool.cluster.connection().ioctx(pool.name, pool.namespace)
    with rados.WriteOpCtx() as op:
        ioctx.remove_omap_keys(op, tuple(names))
        ioctx.operate_write_op(op, key)


def write_clones(pool: Pool, image_id: str, clone_ids: Iterable[str]) -> None:
    """Record clones of an image's only snap, which do not exist.

    As cls_rbd's child_attach does, which rewrites all of them for each.
    """
    (snap_id,) = pool.headers._snap_ids(image_id)
    ioctx = pool.cluster.connection().ioctx(pool.name, pool.namespace)
    pool_id = struct.pack("<q", ioctx.get_pool_id())
    namespace = pool.namespace
    specs = [
        layouts._sealed(pool_id, clone, namespace)
        for clone in sorted(clone_ids)
    ]
    count = struct.pack("<I", len(specs))
    header, snap_key = layouts.header(image_id), f"snapshot_{snap_id:016x}"
    snap = pool.objects.omap_value(header, snap_key)
    assert snap is not None
    assert snap[-1] == 0, "an image that has a parent"
    entries = {
        f"{layouts.CLONES}{snap_id:016x}": count + b"".join(specs),
        # The number of clones, before the snap's parent (cls_rbd_snap).
        snap_key: snap[:-5] + count + snap[-1:],
    }
    write_entries(pool, header, entries)


def remove_clones(pool: Pool, image_id: str) -> None:
    """Remove what write_clones has written."""
    write_clones(pool, image_id, [])
    header = layouts.header(image_id)
    clones = pool.objects.omap_get(header, layouts.CLONES)
    remove_entries(pool, header, clones)


def write_trashed(pool: Pool, like: str, image_ids: Iterable[str]) -> None:
    """Put images that do not exist into the trash, just as another one is.

    :param like: the id of the other image
    """
    value = pool.objects.omap_value("rbd_trash", f"id_{like}")
    assert value is not None
    entries = {f"id_{image_id}": value for image_id in image_ids}
    write_entries(pool, "rbd_trash", entries)
