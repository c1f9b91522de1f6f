# SPDX-License-Identifier: Apache-2.0

"""Which pool a disk is in, and which pool a new disk goes to.

A disk stays in the pool where it was made, and its name is unique over all
pools. A new disk goes to the class that the instance's flavor asks for.
"""

import dataclasses
import functools
from typing import Any

import nova.conf
from nova import exception
from nova.compute import task_states, vm_states
from nova.objects import migration as migration_object

from nova_rbd_backend import names, storage_classes
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.settings import Settings
from nova_rbd_backend.storage_classes import StorageClass
from nova_rbd_backend.virt import edge

CONF = nova.conf.CONF

# Of an instance that a resize works on, on its old host or its new one.
_RESIZE_STATES = (
    task_states.RESIZE_MIGRATING,
    task_states.RESIZE_MIGRATED,
    task_states.RESIZE_FINISH,
    task_states.RESIZE_REVERTING,
)


@dataclasses.dataclass(frozen=True)
class Place:
    """:ivar storage_class: None: no class of nova.conf has this pool"""

    pool: Pool
    storage_class: StorageClass | None


def in_pool(name: str) -> Place:
    """Return a pool, with the first class that uses it."""
    store = edge.store()
    return Place(store.pool(name), store.settings.class_of_pool(name))


def in_class(storage_class: StorageClass) -> Place:
    """Return the pool of a class, for disks of that class."""
    return Place(edge.store().of(storage_class), storage_class)


def of_disk(instance: Any, disk: str, image: str) -> Place:
    """Return where a disk is or, if it does not exist, where it would be made.

    Sends no request while only one pool is known.

    :param disk: Nova's name for the disk, such as ``disk.swap``
    :param image: the RBD image's name
    """
    store = edge.store()
    if len(store.pool_names()) == 1:
        return in_pool(store.settings.pool)
    wanted = _wanted(store.settings, instance, disk)
    first = wanted.pool if wanted else None
    is_new = wanted is not None and (
        _is_new(instance) or disk.endswith(".rescue")
    )
    pool = edge.run(lambda: store.pool_of(image, first, is_new))
    if pool is not None:
        return in_pool(pool)
    return in_class(wanted) if wanted else in_pool(store.settings.pool)


def found_anew(instance: Any, image: str) -> Place | None:
    """Return where a disk is, if it is in a pool that this host did not know.

    Another host may use storage classes that this host does not know, and a
    disk must not be made a second time. Sends no request for an instance that
    is being created, because it has had no disk yet.
    """
    if _is_new(instance):
        return None
    store = edge.store()
    pool = edge.run(lambda: store.pool_of_unknown(image))
    return None if pool is None else in_pool(pool)


def for_new(instance: Any, disk: str) -> Place:
    """Return where to make a disk, in a pool that all hosts know of then.

    :raises nova.exception.InvalidInput: the flavor asks for an unknown class
    """
    store = edge.store()
    wanted = _wanted(store.settings, instance, disk)
    if wanted is None:
        name = storage_classes.asked_for(_extra_specs(instance), disk)
        raise _unknown(store.settings, instance, str(name))
    edge.run(lambda: store.add_pool(wanted))
    return in_class(wanted)


def pool_of_new_root(instance: Any) -> Pool:
    """Return the pool that a new root disk would go to; sends no request."""
    store = edge.store()
    wanted = _wanted(store.settings, instance, "disk")
    return store.pool(wanted.pool if wanted else None)


def require_classes(instance: Any) -> None:
    """Refuse a new instance whose flavor asks for a class not known here.

    :raises nova.exception.InvalidInput: the flavor asks for an unknown class
    """
    settings = edge.settings()
    specs = _extra_specs(instance)
    asked = [specs[spec] for spec in storage_classes.SPECS if spec in specs]
    unknown = [name for name in asked if settings.class_named(name) is None]
    # The disks of other instances may exist already.
    if unknown and _is_new(instance):
        raise _unknown(settings, instance, unknown[0])


def require_makeable(instance: Any) -> None:
    """Refuse to delete an instance's disks that could not be made anew.

    :raises nova.exception.InvalidInput: the flavor asks for an unknown class
    :raises nova.exception.StorageError: the pool of its class does not answer
    """
    kinds = ("disk", "disk.local", "disk.swap", "disk.config")
    pools = [for_new(instance, disk).pool for disk in kinds]
    for pool in {each.name: each for each in pools}.values():
        edge.run(functools.partial(pool.directory.listed_id, ""))


def is_cross_cell_move(instance: Any) -> bool:
    """Return whether a resize moves the instance from one cell to another.

    Its new host makes its disks anew, the root disk from a snapshot, while the
    old host keeps the disks that it has until the resize is confirmed.
    """
    if getattr(instance, "task_state", None) not in _RESIZE_STATES:
        return False
    context = getattr(instance, "migration_context", None)
    return context is not None and bool(context.is_cross_cell_move())


def cross_cell_move(instance: Any) -> str | None:
    """Return the migration of a move to another cell, or None.

    :returns: its UUID, which is the same in both cells
    """
    if not is_cross_cell_move(instance):
        return None
    context = instance.migration_context
    migration = migration_object.Migration.get_by_id(
        context._context, context.migration_id
    )
    return str(migration.uuid)


def is_unshelved(instance: Any) -> bool:
    """Return whether a start unshelves an instance that has no disks."""
    state = getattr(instance, "vm_state", None)
    return bool(state == vm_states.SHELVED_OFFLOADED)


def is_made_of_temporary_image(instance: Any) -> bool:
    """Return whether Nova deletes the image that it starts an instance from.

    Such an image has the disk of a shelved instance, or of an instance that
    is resized into another cell (manager.py, _unshelve_instance,
    _finish_snapshot_based_resize_at_dest). Other disks have no data yet.
    """
    return is_unshelved(instance) or is_cross_cell_move(instance)


def comes_from_elsewhere(instance: Any) -> bool:
    """Return whether an instance that is started here is on another host yet.

    That is so in an evacuation and in a resize to another cell, where Nova
    sets the host after spawn().
    """
    return instance.host not in (None, CONF.host)


def is_evacuated(instance: Any) -> bool:
    """Return whether a start takes over an instance's disks from its host."""
    elsewhere = comes_from_elsewhere(instance)
    return elsewhere and not is_cross_cell_move(instance)


def require_root(instance: Any) -> None:
    """Refuse to evacuate an instance without its root disk.

    :raises nova.exception.DiskNotFound: no pool that is known here has it
    """
    root = str(names.DiskName(instance.uuid, "disk"))
    store = edge.store()

    def find() -> str | None:
        return store.pool_of(root) or store.pool_of_unknown(root)

    if edge.run(find) is None:
        raise not_here(root)


def require_new(instance: Any, disk: str, image: str) -> None:
    """Refuse to make a disk that must exist, on storage not visible here.

    :raises nova.exception.DiskNotFound: the disk must exist
    """
    if _is_new(instance) or is_cross_cell_move(instance):
        return
    if instance.task_state == task_states.RESIZE_FINISH:
        before = instance.old_flavor
        # Other disks do not depend on the flavor: the first boot made them.
        of_flavor = {
            "disk.local": before.ephemeral_gb,
            "disk.swap": before.swap,
        }
        must_exist = of_flavor.get(disk, True)
    else:
        # A boot that was never finished need not have made any disk.
        must_exist = is_evacuated(instance) and instance.launched_at
    if must_exist:
        raise not_here(image)


def not_here(image: str) -> exception.DiskNotFound:
    """Return the error for a disk that must exist, but is in no pool here."""
    store = edge.store()

    def ask() -> tuple[str, str]:
        store.read_pools()
        return " or ".join(store.pool_names()), store.cluster.fsid()

    pools, fsid = edge.run(ask)
    return exception.DiskNotFound(
        location=f"{image} in pool {pools} of Ceph cluster {fsid}: host "
        f"{CONF.host} doesn't share its storage with the host that the "
        "instance comes from; libvirt_images_store and ceph.conf must agree"
    )


def _is_new(instance: Any) -> bool:
    state = getattr(instance, "vm_state", vm_states.BUILDING)
    return bool(state == vm_states.BUILDING)


def _wanted(
    settings: Settings, instance: Any, disk: str
) -> StorageClass | None:
    """Return the class of a new disk; None: this host does not know it."""
    name = storage_classes.asked_for(_extra_specs(instance), disk)
    return settings.class_named(name or settings.default_storage_class)


def _extra_specs(instance: Any) -> dict[str, str]:
    flavor = getattr(instance, "flavor", None)
    return dict(getattr(flavor, "extra_specs", None) or {})


def _unknown(
    settings: Settings, instance: Any, name: str
) -> exception.InvalidInput:
    known = ", ".join(each.name for each in settings.classes)
    # After this exception Nova does not try to build on another host. It cuts
    # a fault after 255 characters, so the list of known classes comes last.
    return exception.InvalidInput(
        reason=f"flavor {instance.flavor.name} asks for storage class "
        f"{name!r}, unknown on {CONF.host}: correct its extra specs, or add "
        f"the class to [nova_rbd] storage_classes (here: {known})"
    )
