# SPDX-License-Identifier: Apache-2.0

"""Tell which images a disk may be cloned from, or filled with.

A user who may set an image's locations can name any RBD image that Nova's Ceph
user can read. Images whose names show that they are not the data of that image
are refused, whoever set the location. Fetching them from Glance would not be
safe either, because Glance's Ceph user may be able to read them, too.
"""

from nova_rbd_backend import errors, names
from nova_rbd_backend.ceph.cluster import Cluster, once_more
from nova_rbd_backend.ceph.pool import Pool


def refuse_foreign(pool: str, image: str, image_id: str | None) -> None:
    """Refuse a disk, a base, or another image's snapshot as an image's data.

    :param image_id: Glance's; None: not known, so that snapshots pass
    :raises ForeignLocation: it is one of these, by its name
    """
    what = None
    if names.DiskName.parse(image):
        what = "an instance's disk"
    elif names.is_base(image):
        what = "a base of this backend"
    elif image_id is not None and names.is_snapshot(image):
        of = names.glance_id(names.final_name(image))
        what = None if of == image_id else f"the snapshot of image {of}"
    if what is not None:
        raise errors.ForeignLocation(
            f"no image may be at {what}",
            operation="use the location of an image",
            pool=pool,
            image=image,
        )


@once_more
def refuse_foreign_location(cluster: Cluster, url: str, image_id: str) -> None:
    """Do the same for a location of Glance; others than RBD's pass.

    :raises ForeignLocation: see refuse_foreign
    """
    try:
        at = names.GlanceLocation.parse(url)
    except errors.InvalidLocation:
        return
    if at.fsid == cluster.fsid():
        refuse_foreign(at.pool, at.image, image_id)


@once_more
def size_bytes(cluster: Cluster, url: str) -> int | None:
    """Return the size of the image at a location of Glance; None: unusable.

    A location is unusable if it is not in RBD, or in another cluster, or if
    our user may not read it. Opens no image.
    """
    try:
        at = names.GlanceLocation.parse(url)
        if at.fsid != cluster.fsid():
            return None
        return Pool(cluster, at.pool).snap_size_bytes(at.image, at.snap)
    except (errors.InvalidLocation, errors.NotFound, errors.NotPermitted):
        return None
