# SPDX-License-Identifier: Apache-2.0

"""Tell which images a disk may be cloned from, or filled with."""

from nova_rbd_backend import errors, names
from nova_rbd_backend.ceph.cluster import Cluster, once_more
from nova_rbd_backend.ceph.pool import Pool


def refuse_disk(pool: str, image: str) -> None:
    """Refuse an instance's disk as the image of another disk.

    It may be anybody's: a user who may set an image's locations can name any
    RBD image that Nova's Ceph user can read, while neither Glance nor Nova
    names an image like a disk. Fetching it from Glance would not be safe
    either, because Glance's Ceph user may be able to read disks, too.

    :raises LocationOfDisk: it has a disk's name
    """
    if names.DiskName.parse(image):
        raise errors.LocationOfDisk(
            "no image may be at an instance's disk",
            operation="use the location of an image",
            pool=pool,
            image=image,
        )


@once_more
def size_bytes(cluster: Cluster, url: str) -> int | None:
    """Return the size of the image at a location of Glance; None: unusable.

    A location is unusable if it is not in RBD, or in another cluster, or if
    our user may not read it. Opens no image.

    :raises LocationOfDisk: it is an instance's disk
    """
    try:
        at = names.GlanceLocation.parse(url)
        if at.fsid != cluster.fsid():
            return None
        refuse_disk(at.pool, at.image)
        return Pool(cluster, at.pool).snap_size_bytes(at.image, at.snap)
    except (errors.InvalidLocation, errors.NotFound, errors.NotPermitted):
        return None
