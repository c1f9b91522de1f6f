# SPDX-License-Identifier: Apache-2.0

"""Compare how an image is found and described."""

import datetime

from nova_rbd_backend import errors
from nova_rbd_backend.ceph import layouts
from nova_rbd_backend.ceph.comparison.same import same
from nova_rbd_backend.ceph.image import Image
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.image_options import FEATURES

# Logins fail long before the clocks of OSDs differ that much.
_CLOCK_SECONDS = 3600.0


def compare(pool: Pool, disk: Image) -> None:
    """Compare how an image and its only snap are found and described."""
    name, image_id = disk.name, disk.image_id
    directory, headers = pool.directory, pool.headers
    with disk._reach("compare"):
        handle = disk._image
        (snap,) = handle.list_snaps()
        size, bits = handle.size(), handle.features()
        created = handle.create_timestamp().replace(tzinfo=datetime.UTC)
    same(
        "id of a name (rbd_id, get_id)",
        lambda: directory.image_id(name),
        image_id,
    )
    listed_as(pool, name, image_id)
    same(
        "size of an image (get_size)",
        lambda: headers.size_bytes(image_id),
        size,
    )
    same(
        "snaps (get_snapcontext, get_snapshot_name, get_size)",
        lambda: headers.snap_size_bytes(image_id, snap["name"]),
        snap["size"],
    )
    same(
        "features of an image (get_features)",
        lambda: {
            "exclusive-lock": headers.has_exclusive_lock(image_id),
            "journaling": headers.has_journal(image_id),
        },
        {
            name: bool(bits & FEATURES[name])
            for name in ("exclusive-lock", "journaling")
        },
    )
    same(
        "image without parent (parent_get)",
        lambda: headers.parent_id(image_id),
        None,
    )
    same(
        "clock of an OSD (get_current_time)",
        lambda: _is_clock_near(pool, created),
        True,
    )


def _is_clock_near(pool: Pool, now: datetime.datetime) -> bool:
    try:
        clocks = pool.clocks()
    except errors.NotSupported:
        return True  # it is not used then
    return abs(clocks.cluster - now.timestamp()) < _CLOCK_SECONDS


def listed_as(pool: Pool, name: str, image_id: str) -> None:
    """Compare the entries that make a name lead to an image, and back."""
    directory, objects = pool.directory, pool.objects
    same(
        "names in rbd_directory",
        lambda: (
            directory.ids(name).get(name),
            directory.listed_id(name),
            directory.listed_name(image_id),
        ),
        (image_id, image_id, name),
    )
    # We write them when another image has got a name meanwhile.
    same(
        "entries of rbd_directory",
        lambda: {
            key: objects.omap_value(layouts.DIRECTORY, key)
            for key in layouts.directory_entries(name, image_id)
        },
        layouts.directory_entries(name, image_id),
    )
