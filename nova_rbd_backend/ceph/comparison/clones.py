# SPDX-License-Identifier: Apache-2.0

"""Make a clone, compare it, and take it to the trash."""

import datetime

import rbd

from nova_rbd_backend.ceph import layouts
from nova_rbd_backend.ceph.comparison.images import listed_as
from nova_rbd_backend.ceph.comparison.same import comparing, same
from nova_rbd_backend.ceph.image import Image
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.image_options import FEATURES, Striping

# Unlike librbd's default, which has no entries in the header.
_STRIPING = Striping(1 << 22, 1 << 16, 4)
_FEATURES = FEATURES["layering"] | FEATURES["exclusive-lock"]
# The key of its metadata.
_NAME = "nova-rbd-check"


def clone_name(image: str) -> str:
    """Return the name of the clone of an image."""
    return f"{image}.clone"


def draft_name(image: str) -> str:
    """Return the name of the clone until it is published."""
    return f"{image}.draft"


def publish(pool: Pool, disk: Image, snap: str) -> str:
    """Make the clone, and give it its name as drafts of disks get it.

    :returns: the clone's id
    """
    directory = pool.directory
    name, draft = clone_name(disk.name), draft_name(disk.name)
    with pool._access.reach("clone", image=draft) as ioctx:
        rbd.RBD().clone(
            ioctx,
            disk.name,
            snap,
            ioctx,
            draft,
            features=_FEATURES,
            order=_STRIPING.order,
            stripe_unit=_STRIPING.stripe_unit_bytes,
            stripe_count=_STRIPING.stripe_count,
        )
    # librbd's list_children asks all pools of the cluster for old clones (16
    # to 20), also those that do not answer. Whether this is the id of what it
    # opens is compared below.
    with comparing("id of a name (rbd_id, get_id)"):
        clone_id = directory.image_id(draft) or ""
    same(
        "clones (snap_children)",
        lambda: [
            (pool.cluster.pool_name(pool_id), namespace, image_id)
            for pool_id, namespace, image_id in pool.headers.clone_ids(
                disk.image_id
            )
        ],
        [(pool.name, pool.namespace, clone_id)],
    )
    layout = "a new name (set_id, dir_rename_image, rbd_id)"
    with comparing(layout):
        directory.publish(draft, clone_id, name)
    same(layout, lambda: directory.image_id(draft), None)
    same(layout, lambda: directory.listed_id(draft), None)
    listed_as(pool, name, clone_id)
    return clone_id


def compare(pool: Pool, clone: Image, image_id: str) -> None:
    """Compare what only clones, and images of other stripes, have.

    :param image_id: the clone's, as :func:`publish` returned it
    """
    headers = pool.headers
    layout = "metadata (metadata_set, metadata_remove)"
    with comparing(layout):
        values = {_NAME: "stays", f"{_NAME}.removed": "goes"}
        headers.set_metadata(image_id, values)
        headers.set_metadata(
            image_id, {f"{_NAME}.2": "two"}, [f"{_NAME}.removed"]
        )
    with clone._reach("compare"):
        handle = clone._image
        opened_id = handle.id()
        parent = handle.get_parent_image_spec()
        striping = Striping(
            int(handle.stat()["obj_size"]),
            handle.stripe_unit(),
            handle.stripe_count(),
        )
        created, *used = (
            each.replace(tzinfo=datetime.UTC, microsecond=0)
            for each in (
                handle.create_timestamp(),
                handle.access_timestamp(),
                handle.modify_timestamp(),
            )
        )
        metadata = dict(handle.metadata_list())
    same("id of a new name (set_id)", lambda: image_id, opened_id)
    same(
        layout,
        lambda: headers.metadata(image_id),
        {**metadata, _NAME: "stays", f"{_NAME}.2": "two"},
    )
    same(layout, lambda: f"{_NAME}.removed" in metadata, False)
    same(
        "parent of a clone (parent_get)",
        lambda: _named_parent(pool, image_id),
        (
            parent["pool_name"],
            parent["pool_namespace"],
            parent["image_name"],
        ),
    )
    same(
        "stripes of an image (get_size, stripe_unit, stripe_count)",
        lambda: headers.striping(image_id),
        striping,
    )
    same(
        "times of an image (create_, access_, modify_timestamp)",
        lambda: headers.times(image_id),
        (created, max(created, *used)),
    )


def _named_parent(pool: Pool, image_id: str) -> tuple[str, str, str | None]:
    found = pool.parent_of(image_id)
    assert found is not None
    parents, parent_id = found
    name = parents.directory.listed_name(parent_id)
    return parents.name, parents.namespace, name


def trash(pool: Pool, name: str, image_id: str) -> None:
    """Finish a move of the clone that a process seems to have left."""
    directory, layout = pool.directory, "unfinished move (trash_state_set)"
    pool.trash.move(name)
    with comparing(layout):
        pool._access.execute(
            "compare",
            name,
            layouts.TRASH,
            ("rbd", "trash_state_set"),
            layouts.begin_of_move(image_id),
        )
        pool._access.execute(
            "compare",
            name,
            layouts.DIRECTORY,
            ("rbd", "dir_add_image"),
            layouts.listed(name, image_id),
        )
        directory.set_id(name, image_id)
        pool.trash.finish_move(image_id, name)
    same(
        "removal of a name (dir_remove_image, rbd_id)",
        lambda: (
            directory.listed_id(name),
            directory.listed_name(image_id),
            directory.image_id(name),
        ),
        (None, None, None),
    )
    with comparing(layout):
        pool.trash.remove(image_id)
