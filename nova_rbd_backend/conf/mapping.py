# SPDX-License-Identifier: Apache-2.0

"""How the options reach Nova's ``[libvirt]`` group, and what is refused.

The rest of the code is handed a :class:`Settings`, never a configuration
object. This module does not import Nova, so that ``nova-rbd-check`` and the
unit tests run without it. The configuration object that is passed to
:func:`apply` has Nova's own options from Nova, or from
:func:`register_nova_options`.
"""

import dataclasses
import functools
import typing

from oslo_config import cfg
from oslo_utils import uuidutils

from nova_rbd_backend import errors
from nova_rbd_backend.conf import class_options, options
from nova_rbd_backend.image_options import ImageOptions
from nova_rbd_backend.settings import Settings
from nova_rbd_backend.storage_classes import DEFAULT, StorageClass, check_names

COMPUTE_DRIVER = "rbd_backend.LibvirtDriver"

# Nova's option for the store of an image type; the other types have no store.
_STORE_OPTIONS = {"rbd": "images_rbd_pool", "lvm": "images_volume_group"}

# Generic option -> Nova's in [libvirt], the same for every image type.
_PAIRS = {
    "libvirt_images_type": "images_type",
    "rbd_user": "rbd_user",
    "rbd_secret_uuid": "rbd_secret_uuid",
}

# Generic names of the store; the second is deprecated.
_STORE_NAMES = ("libvirt_images_store", "libvirt_images_volume_group")


def generic_flags_given(conf: cfg.ConfigOpts) -> list[str]:
    """Return the names of the generic options that the operator set.

    An option with a bad value counts too.
    """
    options.register(conf)
    return [
        opt.name for opt in options.GENERIC_OPTS if _is_given(conf, opt.name)
    ]


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

    Call it before nova.virt.libvirt.driver is imported, because the defaults
    of functions there are taken from ``[libvirt] images_type`` (Nova 26 to
    34). A second call returns the same.

    :raises errors.ConfigError: options contradict each other, cannot work, or
        have no valid value
    """
    options.register(conf)
    new, old = (_get(conf, name) for name in _STORE_NAMES)
    if new and old and new != old:
        raise errors.ConfigError(
            f"[DEFAULT] libvirt_images_store is {new!r}, and its deprecated "
            f"name libvirt_images_volume_group is {old!r}: remove "
            "libvirt_images_volume_group"
        )
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
    fields = {field.name for field in dataclasses.fields(Settings)}
    same = fields.intersection(opt.name for opt in options.NOVA_RBD_OPTS)
    tuning = {name: _get(conf, name, "nova_rbd") for name in same}
    tuning["storage_classes"] = _storage_classes(conf) if pool else ()
    return Settings(
        images_type=images_type,
        pool=pool,
        snapshot_pool=_get(conf, "libvirt_images_snapshot_store") or pool,
        image_options=_image_options(conf, "nova_rbd"),
        user=_get(conf, "rbd_user", "libvirt") or None,
        secret_uuid=_get(conf, "rbd_secret_uuid", "libvirt") or None,
        ceph_conf=_get(conf, "images_rbd_ceph_conf", "libvirt") or None,
        connect_timeout_seconds=_get(conf, "rbd_connect_timeout", "libvirt"),
        **tuning,
    )


def storage_class_names(conf: cfg.ConfigOpts) -> tuple[str, ...]:
    """Return the names of the classes beside the default."""
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
    option = functools.partial(_get, conf, group=group)
    return ImageOptions(
        data_pool=option("data_pool") or None,
        object_size_bytes=option("object_size"),
        stripe_unit_bytes=option("stripe_unit"),
        stripe_count=option("stripe_count"),
        features=tuple(option("image_features") or ()),
        conf=tuple(sorted((option("image_conf") or {}).items())),
        group=group,
    )


def _map(conf: cfg.ConfigOpts, generic: str, nova_name: str) -> None:
    """Set Nova's option to the value of the generic one, if that has any.

    By set_override, because a default is lost when the files are reloaded
    (SIGHUP).

    :raises errors.ConfigError: both have values, and these differ
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
    if images_type in _STORE_OPTIONS:
        _map(conf, given[0], _STORE_OPTIONS[images_type])
        return
    raise errors.ConfigError(
        f"[DEFAULT] {given[0]} is {_get(conf, given[0])!r}, but images of "
        f"type {images_type!r} have no store: remove it, or set "
        "libvirt_images_type to rbd or lvm"
    )


def _refuse_what_rbd_cannot_do(conf: cfg.ConfigOpts) -> None:
    # Nova has a default here, 'rbd'. Nobody chose it, and disks made in the
    # wrong pool are hard to move.
    given = _is_given(conf, "images_rbd_pool", "libvirt")
    if not (given and _get(conf, "images_rbd_pool", "libvirt")):
        raise errors.ConfigError(
            "The type of instance disks is rbd, but no pool is named: set "
            "[DEFAULT] libvirt_images_store to the Ceph pool for them"
        )
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
            f"no such class: take one of {', '.join((DEFAULT, *names))}, or "
            "add it to storage_classes"
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
    """Return the value of an option.

    :raises errors.ConfigError: the value is not valid
    """
    try:
        return conf[group][name] if group else conf[name]
    except (ValueError, cfg.Error) as error:
        # "Value for option x from LocationInfo(...) is not valid: <reason>"
        reason = str(error).rpartition("is not valid: ")[2]
        raise errors.ConfigError(
            f"[{group or 'DEFAULT'}] {name}: {reason}: correct it, or remove "
            "the option"
        ) from error


def _is_given(
    conf: cfg.ConfigOpts, name: str, group: str | None = None
) -> bool:
    """Return whether somebody set the option."""
    try:
        found = conf.get_location(name, group)
    except ValueError:
        return True
    # None if it is not set and has no default (oslo.config up to 10.7).
    return found is not None and found.location not in (
        cfg.Locations.opt_default,
        cfg.Locations.set_default,
    )
