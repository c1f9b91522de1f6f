# SPDX-License-Identifier: Apache-2.0

"""Which pool a disk is in, and which one a new disk goes to.

A disk is where it was made, as long as it lives, and names are unique over
all pools. A new one goes to the class that the instance's flavor asks for.
"""

from typing import Any

import nova.conf
from nova import exception
from nova.compute import task_states, vm_states

from nova_rbd_backend import conf, names, storage_classes
from nova_rbd_backend.storage_classes import StorageClass
from nova_rbd_backend.virt import rbd_utils

CONF = nova.conf.CONF


def of_disk(instance: Any, disk: str, image: str) -> rbd_utils.RBDDriver:
    """Where the disk is; not there: where it would be made.

    With a single pool known nothing is asked.

    :param disk: Nova's name for it: ``disk``, ``disk.swap``
    :param image: the RBD image's
    """
    rbd = rbd_utils.RBDDriver()
    if not rbd.has_more_pools():
        return rbd
    wanted = _wanted(conf.settings(CONF), instance, disk)
    pool = rbd.pool_of(image, wanted.pool if wanted else None)
    if pool is not None:
        return rbd_utils.RBDDriver(pool=pool)
    return rbd_utils.in_class(wanted) if wanted else rbd


def found_anew(instance: Any, image: str) -> rbd_utils.RBDDriver | None:
    """Where a disk is that was not found, if that is a pool new to this host.

    Another host may have a storage class that this one has never heard of: a
    disk must not be made a second time. Nothing is asked for an instance that
    is being created, which had no disk before.
    """
    if _is_new(instance):
        return None
    rbd = rbd_utils.RBDDriver()
    pool = rbd.pool_of_unknown(image)
    return None if pool is None else rbd_utils.RBDDriver(pool=pool)


def for_new(instance: Any, disk: str) -> rbd_utils.RBDDriver:
    """Where a disk is to be made.

    :raises nova.exception.InvalidInput: the flavor asks for an unknown class
    """
    settings = conf.settings(CONF)
    wanted = _wanted(settings, instance, disk)
    if wanted is None:
        name = storage_classes.asked_for(_extra_specs(instance), disk)
        raise _unknown(settings, instance, str(name))
    rbd = rbd_utils.in_class(wanted)
    rbd.add_pool(wanted)
    return rbd


def require_classes(instance: Any) -> None:
    """Refuse a new instance before anything is made of it.

    :raises nova.exception.InvalidInput: the flavor asks for an unknown class
    """
    settings = conf.settings(CONF)
    specs = _extra_specs(instance)
    asked = [specs[spec] for spec in storage_classes.SPECS if spec in specs]
    unknown = [name for name in asked if settings.class_named(name) is None]
    # Of one that is not new the disks may be there.
    if unknown and _is_new(instance):
        raise _unknown(settings, instance, unknown[0])


def is_made_in_another_cell(instance: Any) -> bool:
    """Whether a resize takes the instance to another cell's storage."""
    context = getattr(instance, "migration_context", None)
    return context is not None and bool(context.is_cross_cell_move())


def comes_from_elsewhere(instance: Any) -> bool:
    """Whether an instance that is started here has another host yet.

    So it has in an evacuation and in a resize to another cell, where Nova
    sets the host after spawn().
    """
    return instance.host not in (None, CONF.host)


def is_evacuated(instance: Any) -> bool:
    """Whether an instance is started here on disks that it has elsewhere."""
    elsewhere = comes_from_elsewhere(instance)
    return elsewhere and not is_made_in_another_cell(instance)


def require_root(instance: Any) -> None:
    """Refuse to evacuate an instance without its root disk.

    :raises nova.exception.DiskNotFound: it is in no pool known here
    """
    root = str(names.DiskName(instance.uuid, "disk"))
    rbd = rbd_utils.RBDDriver()
    rbd.read_pools()
    if rbd.pool_of(root, None) is None:
        raise not_here(root)


def require_new(instance: Any, disk: str, image: str) -> None:
    """Refuse to make a disk that the instance has, on storage not seen here.

    :raises nova.exception.DiskNotFound: it ought to be there
    """
    if _ought_to_be_there(instance, disk):
        raise not_here(image)


def _ought_to_be_there(instance: Any, disk: str) -> bool:
    if _is_new(instance) or is_made_in_another_cell(instance):
        return False
    if instance.task_state == task_states.RESIZE_FINISH:
        before = instance.old_flavor
        of_flavor = {
            "disk.local": before.ephemeral_gb,
            "disk.swap": before.swap,
        }
        # The others are of no flavor, and were made at the first boot.
        return bool(of_flavor.get(disk, True))
    # A boot that never came to its end need not have made any.
    return is_evacuated(instance) and instance.launched_at is not None


def not_here(image: str) -> exception.DiskNotFound:
    """What to say where a disk that ought to be there is not."""
    rbd = rbd_utils.RBDDriver()
    pools = " or ".join(rbd.read_pools())
    return exception.DiskNotFound(
        location=f"{image} in pool {pools} of Ceph cluster {rbd.fsid()}: host "
        f"{CONF.host} doesn't share its storage with the one that the "
        "instance comes from; libvirt_images_store and ceph.conf must agree"
    )


def _is_new(instance: Any) -> bool:
    state = getattr(instance, "vm_state", vm_states.BUILDING)
    return bool(state == vm_states.BUILDING)


def _wanted(
    settings: conf.Settings, instance: Any, disk: str
) -> StorageClass | None:
    """None: the flavor asks for a class that this host does not know."""
    name = storage_classes.asked_for(_extra_specs(instance), disk)
    return settings.class_named(name or settings.default_storage_class)


def _extra_specs(instance: Any) -> dict[str, str]:
    flavor = getattr(instance, "flavor", None)
    return dict(getattr(flavor, "extra_specs", None) or {})


def _unknown(
    settings: conf.Settings, instance: Any, name: str
) -> exception.InvalidInput:
    known = ", ".join(each.name for each in settings.classes)
    # Of the exceptions that end a build, and are not tried on another host.
    # Nova cuts a fault after 255 characters: the list comes last.
    return exception.InvalidInput(
        reason=f"flavor {instance.flavor.name} asks for storage class "
        f"{name!r}, unknown on {CONF.host}: correct its extra specs, or add "
        f"the class to [nova_rbd] storage_classes (here: {known})"
    )
