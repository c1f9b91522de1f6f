# SPDX-License-Identifier: Apache-2.0

"""How the options reach Nova's ``[libvirt]`` group, and what may not start.

The rest of the code is handed a :class:`Settings`, never a configuration
object. This module imports no Nova, so that ``nova-rbd-check`` and the unit
tests run without one: whoever calls :func:`apply` passes the configuration
object on which Nova (or :func:`register_nova_options`) registered Nova's own.
"""

import typing

from oslo_config import cfg
from oslo_utils import uuidutils

from nova_rbd_backend import errors
from nova_rbd_backend.conf import class_options
from nova_rbd_backend.conf.options import GENERIC_OPTS, register
from nova_rbd_backend.image_options import ImageOptions
from nova_rbd_backend.settings import Settings
from nova_rbd_backend.storage_classes import DEFAULT, StorageClass, check_names

COMPUTE_DRIVER = "rbd_backend.LibvirtDriver"

# Which of Nova's options keeps the store of an image type; no other has one.
STORE_OPTIONS = {"rbd": "images_rbd_pool", "lvm": "images_volume_group"}

# Generic option -> Nova's in [libvirt], where that doesn't depend on the type.
_PAIRS = {
    "libvirt_images_type": "images_type",
    "rbd_user": "rbd_user",
    "rbd_secret_uuid": "rbd_secret_uuid",
}

# Generic names of the store, the one in use first.
_STORE_NAMES = ("libvirt_images_store", "libvirt_images_volume_group")


def generic_flags_given(conf: cfg.ConfigOpts) -> list[str]:
    """Return the names of the generic options that the operator set.

    Bad values count: a flag that cannot be read was nevertheless meant.
    """
    register(conf)
    return [opt.name for opt in GENERIC_OPTS if _is_given(conf, opt.name)]


def check_driver(conf: cfg.ConfigOpts) -> None:
    """Refuse generic options beside a driver that does not know them.

    :raises errors.ConfigError: Nova would ignore them and keep disks elsewhere
    """
    given = generic_flags_given(conf)
    if given and conf.compute_driver != COMPUTE_DRIVER:
        raise errors.ConfigError(
            f"[DEFAULT] {', '.join(given)} set, but compute_driver is "
            f"{conf.compute_driver!r}, which does not know such options and "
            f"would keep disks elsewhere: set compute_driver to "
            f"{COMPUTE_DRIVER}"
        )


def apply(conf: cfg.ConfigOpts) -> Settings:
    """Map the generic options onto [libvirt], check all, return the result.

    Has to run before nova.virt.libvirt.driver is imported: functions there
    have defaults taken from ``[libvirt] images_type`` (Nova 26 to 34). A
    second call finds everything mapped and returns the same.

    :raises errors.ConfigError: options that contradict each other, that
        cannot work, or that have no valid value
    """
    register(conf)
    _refuse_two_stores(conf)
    for generic, nova_name in _PAIRS.items():
        _map(conf, generic, nova_name)
    images_type = _get(conf, "images_type", "libvirt")
    _map_store(conf, images_type)
    if images_type == "rbd":
        _refuse_what_rbd_cannot_do(conf)
    elif store := _get(conf, "libvirt_images_snapshot_store"):
        raise errors.ConfigError(
            f"[DEFAULT] libvirt_images_snapshot_store is {store!r}, but "
            f"images of type {images_type!r} have no such store: remove it, "
            "or set libvirt_images_type to rbd"
        )
    return settings(conf)


def settings(conf: cfg.ConfigOpts) -> Settings:
    """Return what :func:`apply` made of the options, without its checks."""
    images_type = _get(conf, "images_type", "libvirt")
    pool = ""
    if images_type == "rbd":
        pool = _get(conf, "images_rbd_pool", "libvirt")
    return Settings(
        images_type=images_type,
        pool=pool,
        snapshot_pool=_get(conf, "libvirt_images_snapshot_store") or pool,
        image_options=_image_options(conf, "nova_rbd"),
        user=_get(conf, "rbd_user", "libvirt") or None,
        secret_uuid=_get(conf, "rbd_secret_uuid", "libvirt") or None,
        ceph_conf=_get(conf, "images_rbd_ceph_conf", "libvirt") or None,
        connect_timeout_seconds=_get(conf, "rbd_connect_timeout", "libvirt"),
        operation_timeout_seconds=_get(
            conf, "operation_timeout_seconds", "nova_rbd"
        ),
        trash_retention_seconds=_get(
            conf, "trash_retention_seconds", "nova_rbd"
        ),
        blocklist_seconds=_get(conf, "blocklist_seconds", "nova_rbd"),
        import_workers=_get(conf, "import_workers", "nova_rbd"),
        import_at_once=_get(conf, "import_at_once", "nova_rbd"),
        detach_at_once=_get(conf, "detach_at_once", "nova_rbd"),
        clone_depth_soft_limit=_get(
            conf, "clone_depth_soft_limit", "nova_rbd"
        ),
        clone_depth_hard_limit=_get(
            conf, "clone_depth_hard_limit", "nova_rbd"
        ),
        storage_classes=_storage_classes(conf) if pool else (),
        default_storage_class=_get(conf, "default_storage_class", "nova_rbd"),
        capacity_share_percent=_get(
            conf, "capacity_share_percent", "nova_rbd"
        ),
    )


def storage_class_names(conf: cfg.ConfigOpts) -> tuple[str, ...]:
    """The names of the classes beside the default; register() was called."""
    return tuple(_get(conf, "storage_classes", "nova_rbd"))


def _storage_classes(conf: cfg.ConfigOpts) -> tuple[StorageClass, ...]:
    names = storage_class_names(conf)
    class_options.register(conf, names)
    return tuple(
        StorageClass(
            name,
            _get(conf, "pool", class_options.group(name)) or "",
            _image_options(conf, class_options.group(name)),
        )
        for name in names
    )


def _image_options(conf: cfg.ConfigOpts, group: str) -> ImageOptions:
    def option(name: str) -> typing.Any:
        return _get(conf, name, group)

    return ImageOptions(
        data_pool=option("data_pool") or None,
        object_size_bytes=option("object_size"),
        stripe_unit_bytes=option("stripe_unit"),
        stripe_count=option("stripe_count"),
        features=tuple(option("image_features") or ()),
        conf=tuple(sorted((option("image_conf") or {}).items())),
        group=group,
    )


def _refuse_two_stores(conf: cfg.ConfigOpts) -> None:
    new, old = (_get(conf, name) for name in _STORE_NAMES)
    if new and old and new != old:
        raise errors.ConfigError(
            f"[DEFAULT] libvirt_images_store is {new!r}, and its deprecated "
            f"name libvirt_images_volume_group is {old!r}: remove "
            "libvirt_images_volume_group"
        )


def _map(conf: cfg.ConfigOpts, generic: str, nova_name: str) -> None:
    """Give Nova's option the generic one's value, unless they differ.

    set_override, because it outlives a reload of the files (SIGHUP), which
    set_default does not.
    """
    value = _get(conf, generic)
    if not value:
        return
    theirs = _get(conf, nova_name, "libvirt")
    if _is_given(conf, nova_name, "libvirt") and theirs not in (value, ""):
        raise errors.ConfigError(
            f"[DEFAULT] {generic} is {value!r}, but [libvirt] {nova_name} is "
            f"{theirs!r}: remove one of them, or make them equal"
        )
    conf.set_override(nova_name, value, group="libvirt")


def _map_store(conf: cfg.ConfigOpts, images_type: str) -> None:
    given = [name for name in _STORE_NAMES if _get(conf, name)]
    if not given:
        return
    if images_type in STORE_OPTIONS:
        _map(conf, given[0], STORE_OPTIONS[images_type])
        return
    raise errors.ConfigError(
        f"[DEFAULT] {given[0]} is {_get(conf, given[0])!r}, but images of "
        f"type {images_type!r} have no store: remove it, or set "
        "libvirt_images_type to rbd or lvm"
    )


def _refuse_what_rbd_cannot_do(conf: cfg.ConfigOpts) -> None:
    _require_pool(conf)
    _require_whole_credentials(conf)
    _image_options(conf, "nova_rbd").check()
    _require_whole_classes(conf)
    if not _get(conf, "force_raw_images"):
        raise errors.ConfigError(
            "[DEFAULT] force_raw_images is false, but RBD images can only be "
            "raw: set it to true, or remove it"
        )
    if _get(conf, "enabled", "ephemeral_storage_encryption"):
        raise errors.ConfigError(
            "[ephemeral_storage_encryption] enabled is true, but disks of "
            "type rbd cannot be encrypted by Nova: set it to false"
        )
    if _get(conf, "rbd_connect_timeout", "libvirt") < 1:
        raise errors.ConfigError(
            "[libvirt] rbd_connect_timeout is below 1 second, so connecting "
            "to Ceph would have no limit: set it to 1 or more"
        )


def _require_pool(conf: cfg.ConfigOpts) -> None:
    # Nova has a default here, 'rbd'. Nobody chose it, and disks made in the
    # wrong pool are hard to move.
    given = _is_given(conf, "images_rbd_pool", "libvirt")
    if not (given and _get(conf, "images_rbd_pool", "libvirt")):
        raise errors.ConfigError(
            "The type of instance disks is rbd, but no pool is named: set "
            "[DEFAULT] libvirt_images_store to the Ceph pool for them"
        )


def _require_whole_classes(conf: cfg.ConfigOpts) -> None:
    names = storage_class_names(conf)
    check_names(names)
    for each in _storage_classes(conf):
        if not each.pool:
            group = class_options.group(each.name)
            raise errors.ConfigError(
                f"[nova_rbd] storage_classes has {each.name!r}, but "
                f"[{group}] pool is not set: set it to the Ceph pool of that "
                "class, or remove the class"
            )
        each.image_options.check()
    default = _get(conf, "default_storage_class", "nova_rbd")
    if default not in (DEFAULT, *names):
        raise errors.ConfigError(
            f"[nova_rbd] default_storage_class is {default!r}, but there is "
            f"no such class: take of {', '.join((DEFAULT, *names))}, or add "
            "it to storage_classes"
        )


def _require_whole_credentials(conf: cfg.ConfigOpts) -> None:
    user = _get(conf, "rbd_user", "libvirt")
    secret_uuid = _get(conf, "rbd_secret_uuid", "libvirt")
    if user and not secret_uuid:
        raise errors.ConfigError(
            f"rbd_user is {user!r}, but rbd_secret_uuid is not set, so guests "
            "could not log in to Ceph: set it to the UUID of the libvirt "
            "secret with that user's key"
        )
    if secret_uuid and not user:
        raise errors.ConfigError(
            "rbd_secret_uuid is set, but rbd_user is not: set it to the Ceph "
            "user (without 'client.') whose key the libvirt secret holds"
        )
    if user and user.startswith("client."):
        raise errors.ConfigError(
            f"rbd_user is {user!r}: leave out 'client.', Ceph adds it"
        )
    if secret_uuid and not uuidutils.is_uuid_like(secret_uuid):
        raise errors.ConfigError(
            f"rbd_secret_uuid is {secret_uuid!r}, which is not a UUID: take "
            "it from `virsh secret-list`"
        )


def _get(
    conf: cfg.ConfigOpts, name: str, group: str | None = None
) -> typing.Any:
    """Read an option; a bad value becomes an error that says how to mend."""
    try:
        return conf[group][name] if group else conf[name]
    except ValueError as error:  # oslo_config.cfg.ConfigFileValueError too
        # "Value for option x from LocationInfo(...) is not valid: <reason>"
        reason = str(error).rpartition("is not valid: ")[2]
        raise errors.ConfigError(
            f"[{group or 'DEFAULT'}] {name}: {reason}: correct it, or remove "
            "the option"
        ) from error


def _is_given(
    conf: cfg.ConfigOpts, name: str, group: str | None = None
) -> bool:
    """Tell whether somebody set the option, and not only its default."""
    try:
        found = conf.get_location(name, group)
    except ValueError:
        return True
    # None: not set, and the option has no default (oslo.config to 10.7).
    return found is not None and found.location not in (
        cfg.Locations.opt_default,
        cfg.Locations.set_default,
    )
