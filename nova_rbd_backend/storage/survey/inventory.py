# SPDX-License-Identifier: Apache-2.0

"""Flow: list the disks in a pool, and their parents. Changes nothing.

Opens no image: each takes some requests of half a millisecond.
"""

import contextlib
import dataclasses
from collections.abc import Iterator

from nova_rbd_backend import errors, names
from nova_rbd_backend.ceph.pool import Pool


@dataclasses.dataclass(frozen=True)
class DiskInfo:
    """An image as it is now."""

    pool: Pool
    name: str
    image_id: str
    size_bytes: int
    metadata: dict[str, str]
    parent: names.ImagePath | None
    depth: int  # the number of its parents, one above the other
    lock_owner: int | None  # id of the client that has, or had, its lock


def disks(pool: Pool, instance_uuid: str | None = None) -> Iterator[DiskInfo]:
    """Yield the disks of all instances, or of one, by name; no drafts.

    :raises NotPermitted: the pool may not be read
    """
    prefix = names.DiskName.prefix(instance_uuid) if instance_uuid else ""
    found = {
        name: image_id
        for name, image_id in pool.directory.ids(prefix).items()
        if names.DiskName.parse(name) and not names.is_draft(name)
    }
    ancestors: _Ancestors = {}
    for name in sorted(found):
        # A disk may be deleted meanwhile.
        with contextlib.suppress(errors.ImageNotFound):
            yield describe(pool, name, found[name], ancestors)


_Ancestors = dict[tuple[str, str], tuple[names.ImagePath, int]]


def describe(
    pool: Pool,
    name: str,
    image_id: str,
    ancestors: _Ancestors | None = None,
) -> DiskInfo:
    """Return the facts of one image.

    :param ancestors: a cache of parents, for several calls
    :raises ImageNotFound: there is no such image
    """
    parent, depth = _parent(
        pool, image_id, {} if ancestors is None else ancestors
    )
    locks = pool.holders.locks(image_id)
    return DiskInfo(
        pool,
        name,
        image_id,
        pool.headers.size_bytes(image_id),
        pool.headers.metadata(image_id),
        parent,
        depth,
        locks[0].client_id if locks else None,
    )


def _parent(
    pool: Pool, image_id: str, ancestors: _Ancestors
) -> tuple[names.ImagePath | None, int]:
    found = pool.parent_of(image_id)
    if found is None:
        return None, 0
    parent_pool, parent_id = found
    key = str(parent_pool), parent_id
    if key not in ancestors:
        path = names.ImagePath(
            parent_pool.name,
            parent_pool.namespace,
            name_of(parent_pool, parent_id) or parent_id,
        )
        ancestors[key] = path, parent_pool.depth(parent_id) + 1
    return ancestors[key]


def name_of(pool: Pool, image_id: str) -> str | None:
    """Return an image's name, also in the trash; None: it cannot be read."""
    with contextlib.suppress(errors.NotPermitted, errors.NotFound):
        name = pool.directory.listed_name(image_id)
        if name is not None:
            return name
        trashed = pool.trash.get(image_id)
        return trashed.name if trashed else None
    return None
