# SPDX-License-Identifier: Apache-2.0

"""Which images a disk may be cloned from, or filled with."""

from nova_rbd_backend import errors, names
from nova_rbd_backend.ceph.cluster import Cluster, once_more
from nova_rbd_backend.ceph.pool import Pool


def refuse_disk(pool: str, image: str) -> None:
    """Refuse a disk as the image of another disk: it may be anybody's.

    A user who may set an image's locations can name any image that Nova's
    user can read, while neither Glance nor Nova gives an image the name of a
    disk. It is not fetched from Glance instead: Glance's user may read disks
    too.

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
    """Return the size of the image at Glance's location; None: unusable.

    A location is unusable if it is not in RBD, in another cluster, or not
    readable by our user. Opens nothing.

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
