# SPDX-License-Identifier: Apache-2.0

"""Which pool a disk is in, and which pool a new disk goes to.

A disk is where it was made, as long as it lives, and names are unique over
all pools. A new disk goes to the class that the instance's flavor asks for.
"""

import dataclasses
from typing import Any

import nova.conf
from nova import exception
from nova.compute import task_states, vm_states

from nova_rbd_backend import names, storage_classes
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.settings import Settings
from nova_rbd_backend.storage_classes import StorageClass
from nova_rbd_backend.virt import edge

CONF = nova.conf.CONF


@dataclasses.dataclass(frozen=True)
class Place:
    """A pool for disks.

    :ivar storage_class: None: no class of nova.conf has this pool
    """

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
    """Return where the disk is; if it does not exist: where it would be made.

    Asks nothing while a single pool is known.

    :param disk: Nova's name for it: ``disk``, ``disk.swap``
    :param image: the RBD image's
    """
    store = edge.store()
    if len(store.pool_names()) == 1:
        return in_pool(store.settings.pool)
    wanted = _wanted(store.settings, instance, disk)
    first = wanted.pool if wanted else None
    pool = edge.run(lambda: store.pool_of(image, first))
    if pool is not None:
        return in_pool(pool)
    return in_class(wanted) if wanted else in_pool(store.settings.pool)


def found_anew(instance: Any, image: str) -> Place | None:
    """Return where a disk is, if its pool was not known to this host.

    Another host may have a storage class that this host has never heard of: a
    disk must not be made a second time. Asks nothing for an instance that is
    being created, which had no disk before.
    """
    if _is_new(instance):
        return None
    store = edge.store()
    pool = edge.run(lambda: store.pool_of_unknown(image))
    return None if pool is None else in_pool(pool)


def for_new(instance: Any, disk: str) -> Place:
    """Return where a disk is to be made, known to all hosts.

    :raises nova.exception.InvalidInput: the flavor asks for an unknown class
    """
    store = edge.store()
    wanted = _wanted(store.settings, instance, disk)
    if wanted is None:
        name = storage_classes.asked_for(_extra_specs(instance), disk)
        raise _unknown(store.settings, instance, str(name))
    edge.run(lambda: store.add_pool(wanted))
    return in_class(wanted)


def require_classes(instance: Any) -> None:
    """Refuse a new instance before anything is made of it.

    :raises nova.exception.InvalidInput: the flavor asks for an unknown class
    """
    settings = edge.settings()
    specs = _extra_specs(instance)
    asked = [specs[spec] for spec in storage_classes.SPECS if spec in specs]
    unknown = [name for name in asked if settings.class_named(name) is None]
    # The disks of an instance that is not new may exist.
    if unknown and _is_new(instance):
        raise _unknown(settings, instance, unknown[0])


def is_made_in_another_cell(instance: Any) -> bool:
    """Return whether a resize takes the instance to another cell's storage."""
    context = getattr(instance, "migration_context", None)
    return context is not None and bool(context.is_cross_cell_move())


def comes_from_elsewhere(instance: Any) -> bool:
    """Return whether an instance that is started here has another host yet.

    So it has in an evacuation and in a resize to another cell, where Nova
    sets the host after spawn().
    """
    return instance.host not in (None, CONF.host)


def is_evacuated(instance: Any) -> bool:
    """Return whether an instance is started here on its disks of elsewhere."""
    elsewhere = comes_from_elsewhere(instance)
    return elsewhere and not is_made_in_another_cell(instance)


def require_root(instance: Any) -> None:
    """Refuse to evacuate an instance without its root disk.

    :raises nova.exception.DiskNotFound: no pool known here has it
    """
    root = str(names.DiskName(instance.uuid, "disk"))
    store = edge.store()

    def find() -> str | None:
        store.read_pools()
        return store.pool_of(root)

    if edge.run(find) is None:
        raise not_here(root)


def require_new(instance: Any, disk: str, image: str) -> None:
    """Refuse to make a disk that the instance has, on storage not seen here.

    :raises nova.exception.DiskNotFound: the disk ought to exist
    """
    if _ought_to_exist(instance, disk):
        raise not_here(image)


def _ought_to_exist(instance: Any, disk: str) -> bool:
    if _is_new(instance) or is_made_in_another_cell(instance):
        return False
    if instance.task_state == task_states.RESIZE_FINISH:
        before = instance.old_flavor
        of_flavor = {
            "disk.local": before.ephemeral_gb,
            "disk.swap": before.swap,
        }
        # Other disks depend on no flavor, and were made at the first boot.
        return bool(of_flavor.get(disk, True))
    # A boot that never came to its end need not have made any.
    return is_evacuated(instance) and instance.launched_at is not None


def not_here(image: str) -> exception.DiskNotFound:
    """Return the error for a disk that ought to exist, and is not found."""
    store = edge.store()

    def ask() -> tuple[str, str]:
        store.read_pools()
        return " or ".join(store.pool_names()), store.cluster.fsid()

    pools, fsid = edge.run(ask)
    return exception.DiskNotFound(
        location=f"{image} in pool {pools} of Ceph cluster {fsid}: host "
        f"{CONF.host} doesn't share its storage with the one that the "
        "instance comes from; libvirt_images_store and ceph.conf must agree"
    )


def _is_new(instance: Any) -> bool:
    state = getattr(instance, "vm_state", vm_states.BUILDING)
    return bool(state == vm_states.BUILDING)


def _wanted(
    settings: Settings, instance: Any, disk: str
) -> StorageClass | None:
    """None: the flavor asks for a class that this host does not know."""
    name = storage_classes.asked_for(_extra_specs(instance), disk)
    return settings.class_named(name or settings.default_storage_class)


def _extra_specs(instance: Any) -> dict[str, str]:
    flavor = getattr(instance, "flavor", None)
    return dict(getattr(flavor, "extra_specs", None) or {})


def _unknown(
    settings: Settings, instance: Any, name: str
) -> exception.InvalidInput:
    known = ", ".join(each.name for each in settings.classes)
    # One of the exceptions that end a build without a try on another host.
    # Nova cuts a fault after 255 characters: the list comes last.
    return exception.InvalidInput(
        reason=f"flavor {instance.flavor.name} asks for storage class "
        f"{name!r}, unknown on {CONF.host}: correct its extra specs, or add "
        f"the class to [nova_rbd] storage_classes (here: {known})"
    )
