# SPDX-License-Identifier: Apache-2.0

"""Flow: list the clones of an image, in all pools that may be read.

Changes nothing and opens no image: an image's header has the ids of its clones
(clone v2), also of those in the trash.
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
    """An image by its id, because its name may change."""

    pool: Pool
    image_id: str
    name: str | None  # None: it is in a pool that may not be read
    trashed: bool

    @property
    def path(self) -> names.ImagePath:
        return names.ImagePath(
            self.pool.name, self.pool.namespace, self.name or self.image_id
        )


@dataclasses.dataclass(frozen=True)
class Clone:
    image: ImageRef
    parent: ImageRef
    level: int  # 1 for a clone of the image, 2 for a clone of that clone


def named(cluster: Cluster, name: str) -> list[ImageRef]:
    """Return the images of a name, and the snapshot and bases of an image id.

    :param name: ``NAME`` or ``POOL/NAME``; an image id is Glance's
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
                if image_id and not names.is_draft(each)
            ]
    return found


def _pools(cluster: Cluster) -> Iterator[Pool]:
    """Yield all pools for RBD images, and their namespaces."""
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
    """Yield all clones of an image, each followed by its own clones.

    :raises NotPermitted: the image's pool may not be read
    """
    for child in clones(image):
        yield Clone(child, image, level)
        # The clones of an image in a pool that may not be read are not known.
        with contextlib.suppress(errors.NotPermitted):
            yield from below(child, level + 1)


def clones(image: ImageRef) -> list[ImageRef]:
    """Return the clones of an image's snaps, by name."""
    found = [
        _image(pool, image_id)
        for pool, image_id in image.pool.clones(image.image_id)
    ]
    return sorted(found, key=lambda child: str(child.path))


def _image(pool: Pool, image_id: str) -> ImageRef:
    with contextlib.suppress(errors.NotPermitted):
        name = pool.directory.listed_name(image_id)
        # Only if need be: librbd prints an error if it may not read the trash.
        trashed = None if name else pool.trash.get(image_id)
        if trashed:
            return ImageRef(pool, image_id, trashed.name, trashed=True)
        return ImageRef(pool, image_id, name, trashed=False)
    return ImageRef(pool, image_id, None, trashed=False)
