# SPDX-License-Identifier: Apache-2.0

"""Flow: what hangs on an image, in all pools that may be read.

Changes nothing. No image is opened for it: the list of its clones is in an
image's header (clone v2), by id, so that one in the trash is there too.
"""

import contextlib
import dataclasses
import json
from collections.abc import Iterator

from nova_rbd_backend import errors, names
from nova_rbd_backend.ceph.cluster import Cluster
from nova_rbd_backend.ceph.pool import Pool


@dataclasses.dataclass(frozen=True)
class ImageRef:
    """An image by id; its name may change.

    :ivar name: None: it is in a pool that may not be read
    :ivar trashed: its name is free, but it is there
    """

    pool: Pool
    image_id: str
    name: str | None
    trashed: bool

    @property
    def path(self) -> names.ImagePath:
        return names.ImagePath(
            self.pool.name, self.pool.namespace, self.name or self.image_id
        )


@dataclasses.dataclass(frozen=True)
class Clone:
    """:ivar level: 1 for a clone of the image itself, 2 for a clone of that"""

    image: ImageRef
    parent: ImageRef
    level: int


def named(cluster: Cluster, name: str) -> list[ImageRef]:
    """All images of a name, and snapshots and bases of that id in Glance.

    :param name: ``POOL/NAME`` too
    """
    where, _, name = name.rpartition("/")
    wanted = (name, names.snapshot_image(name))
    found = []
    for pool in _pools(cluster):
        if where and str(pool) != where:
            continue
        with contextlib.suppress(errors.NotPermitted):
            ids = {each: pool.directory.image_id(each) for each in wanted}
            ids |= pool.directory.ids(f"{names.BASE_PREFIX}{name}_")
            found += [
                ImageRef(pool, image_id, each, trashed=False)
                for each, image_id in ids.items()
                if image_id and names.final_name(each) == each
            ]
    return found


def _pools(cluster: Cluster) -> Iterator[Pool]:
    """All pools for RBD images, each with its namespaces."""
    answer = json.loads(cluster.mon_command("osd pool ls", detail="detail"))
    for entry in answer:
        if "rbd" not in entry["application_metadata"]:
            continue
        pool = Pool(cluster, entry["pool_name"])
        yield pool
        with contextlib.suppress(errors.NotPermitted):
            for namespace in pool.directory.namespaces():
                yield pool.beside(pool.name, namespace)


def below(image: ImageRef, level: int = 1) -> Iterator[Clone]:
    """All clones of an image, each followed by the clones of it.

    :raises NotPermitted: the image's pool may not be read
    """
    for child in clones(image):
        yield Clone(child, image, level)
        # What is in a pool that may not be read keeps its own to itself.
        with contextlib.suppress(errors.NotPermitted):
            yield from below(child, level + 1)


def clones(image: ImageRef) -> list[ImageRef]:
    """The clones of an image's snaps, by name."""
    cluster = image.pool.cluster
    return sorted(
        (
            _image(
                image.pool.beside(cluster.pool_name(pool_id), namespace),
                image_id,
            )
            for pool_id, namespace, image_id in image.pool.headers.clone_ids(
                image.image_id
            )
        ),
        key=lambda child: str(child.path),
    )


def _image(pool: Pool, image_id: str) -> ImageRef:
    # The trash is looked at through librbd, which prints what it is denied.
    with contextlib.suppress(errors.NotPermitted):
        name = pool.directory.listed_name(image_id)
        trashed = None if name else pool.trash.get(image_id)
        if trashed:
            return ImageRef(pool, image_id, trashed.name, trashed=True)
        return ImageRef(pool, image_id, name, trashed=False)
    return ImageRef(pool, image_id, None, trashed=False)
