# SPDX-License-Identifier: Apache-2.0

"""Is this a Nova whose seams have the shape that this backend relies on?

The seams changed once between Nova 26 and 34 (``safe`` came with 30). This
module lists the parameters of all that we override or call, and the names that
we use, so that a nova-compute with others stops when it starts, with one line
in its log, and not during somebody's resize. It also knows which methods of
Nova start a guest, because a start that does not pass through ours would not
be fenced.
"""

import importlib
import inspect
import types
from collections.abc import Callable, Iterator, Mapping

from oslo_log import log as logging

from nova_rbd_backend import errors

LOG = logging.getLogger(__name__)

OLDEST = 26
NEWEST = 34

# Parameter names in order; "?" marks a parameter that some releases lack.
# After "..." the order does not matter, and there may be others.
_DRIVER = {
    "__init__": "self virtapi read_only",
    "init_host": "self host",
    "cleanup": "self context instance network_info block_device_info "
    "destroy_disks migrate_data destroy_vifs destroy_secrets",
    "_cleanup_rbd": "self instance",
    "delete_instance_files": "self instance",
    "spawn": "self context instance image_meta injected_files admin_password "
    "allocations network_info block_device_info power_on accel_info",
    "rebuild": "self context instance image_meta injected_files "
    "admin_password allocations bdms detach_block_devices "
    "attach_block_devices network_info evacuate block_device_info "
    "preserve_ephemeral accel_uuids reimage_boot_volume?",
    "_create_guest": "self context xml instance power_on pause "
    "post_xml_callback",
    "check_can_live_migrate_destination": "self context instance "
    "src_compute_info dst_compute_info block_migration disk_over_commit",
    "check_can_live_migrate_source": "self context instance "
    "dest_check_data block_device_info",
    "_create_shared_storage_test_file": "self instance",
    "rollback_live_migration_at_destination": "self context instance "
    "network_info block_device_info destroy_disks migrate_data",
    "finish_migration": "self context migration instance disk_info "
    "network_info image_meta resize_instance allocations block_device_info "
    "power_on share_info?",
    "confirm_migration": "self context migration instance network_info",
    "pre_live_migration": "self context instance block_device_info "
    "network_info disk_info migrate_data",
    "power_off": "self instance timeout retry_interval",
    "rescue": "self context instance network_info image_meta "
    "rescue_password block_device_info share_info?",
    "unrescue": "self context instance",
    "_is_booted_from_volume": "block_device_info",
    "_get_local_gb_info": "",
    "update_provider_tree": "self provider_tree nodename allocations",
    "manage_image_cache": "self context all_instances",
    "snapshot": "self context instance image_id update_task_state",
    "quiesce": "self context instance image_meta",
    "unquiesce": "self context instance image_meta",
    "_needs_suspend_resume_for_snapshot": "self live_snapshot "
    "current_power_state",
    "cache_image": "self context image_id",
    "_get_disk_size_reserved_for_image_cache": "self",
    # These are handed to Image.cache(), whose keywords are theirs.
    "_create_ephemeral": "... target ephemeral_size specified_fs",
    "_create_swap": "... target swap_mb",
}
_IMAGE = {
    "__init__": "self path source_type driver_format is_block_dev "
    "disk_info_mapping",
    "cache": "self fetch_func filename size safe? *args **kwargs",
    "create_image": "self prepare_template base size safe? *args **kwargs",
    "clone": "self context image_id_or_uri",
    "libvirt_info": "self cache_mode extra_specs boot_order disk_unit",
    "verify_base_size": "self base size base_size",
    "get_disk_size": "self name",
    "resize_image": "self size",
    "exists": "self",
    "flatten": "self",
    "import_file": "self instance local_file remote_name",
    "create_snap": "self name",
    "remove_snap": "self name ignore_errors",
    "rollback_to_snap": "self name",
    "snapshot_extract": "self target out_format",
    "direct_snapshot": "self context snapshot_name image_format image_id "
    "base_image_id",
    "cleanup_direct_snapshot": "self location also_destroy_volume "
    "ignore_errors",
    "get_model": "self connection",
    "is_shared_block_storage": "",
    "is_file_in_instance_path": "",
    "_can_fallocate": "self",
}
_BACKEND = {
    "__init__": "self use_cow",
    "backend": "self image_type",
    "by_name": "self instance name image_type disk_info_mapping",
    "by_libvirt_path": "self instance path image_type",
}
# Nova's own modules call these on our class, which replaces Nova's.
_RBD_DRIVER = {
    "__init__": "self pool user ceph_conf connect_timeout",
    "cleanup_volumes": "self filter_fn",
    "export_image": "self base name snap pool",
    "get_mon_addrs": "self strip_brackets",
    "get_pool_info": "self",
}

# (module, class or None for functions of the module) -> its seams.
SEAMS: dict[tuple[str, str | None], dict[str, str]] = {
    ("nova.virt.libvirt.driver", "LibvirtDriver"): _DRIVER,
    ("nova.virt.libvirt.imagebackend", "Image"): _IMAGE,
    ("nova.virt.libvirt.imagebackend", "Rbd"): {
        "copy_to_store": "self context image_meta"
    },
    ("nova.virt.libvirt.imagebackend", "Backend"): _BACKEND,
    ("nova.storage.rbd_utils", "RBDDriver"): _RBD_DRIVER,
    ("nova.virt.image.model", "RBDImage"): {
        "__init__": "self name pool user password servers"
    },
    ("nova.virt.libvirt.host", "Host"): {
        "get_connection": "self",
        "get_guest": "self instance",
    },
    ("nova.virt.libvirt.guest", "Guest"): {
        "get_power_state": "self host",
        "get_xml_desc": "self dump_inactive dump_sensitive dump_migratable",
    },
    ("nova.compute.provider_tree", "ProviderTree"): {
        "data": "self name_or_uuid",
        "update_inventory": "self name_or_uuid inventory generation",
    },
    ("nova.scheduler.client.report", "SchedulerReportClient"): {
        "get_allocations_for_resource_provider": "self context rp_uuid",
    },
    ("nova.compute.utils", None): {
        "is_volume_backed_instance": "context instance bdms",
    },
    ("nova.context", None): {"get_admin_context": "read_deleted"},
    ("nova.context", "RequestContext"): {
        "__init__": "... is_admin user_auth_plugin",
    },
    ("nova.image.glance", "API"): {
        "get": "self context id_or_uri include_locations show_deleted",
        "update": "self context id_or_uri image_info data purge_props",
        "delete": "self context id_or_uri",
        "download": "self context id_or_uri data dest_path trusted_certs",
    },
    ("nova.objects.block_device", "BlockDeviceMappingList"): {
        "get_by_instance_uuid": "context instance_uuid use_slave",
    },
    ("nova.objects", "Instance"): {
        "get_by_uuid": "context uuid expected_attrs use_slave",
    },
    ("nova.objects", "InstanceList"): {
        "get_by_filters": "... context filters expected_attrs",
    },
    ("nova.objects.migration", "Migration"): {
        "get_by_id": "context migration_id"
    },
    ("nova.virt.hardware", None): {
        "check_hw_rescue_props": "image_meta",
    },
    ("nova.virt.images", None): {
        "qemu_img_info": "path format",
        "fetch": "context image_href path trusted_certs",
        "fetch_to_raw": "context image_href path trusted_certs",
        "convert_image": "source dest in_format out_format run_as_root "
        "compress src_encryption? dest_encryption?",
    },
    ("nova.virt.libvirt.utils", None): {
        # Handed to Image.cache() too.
        "fetch_image": "... context target image_id trusted_certs",
        "get_instance_path": "instance relative",
        "find_disk": "guest",
        "get_disk_type_from_path": "path",
    },
}


#: Module -> what we use of it beside the seams.
NAMES = {
    "nova.compute.power_state": "RUNNING",
    "nova.compute.task_states": "DELETING RESIZE_FINISH RESIZE_MIGRATED "
    "RESIZE_MIGRATING RESIZE_REVERTING SHELVING",
    "nova.compute.utils": "disk_ops_semaphore",
    "nova.compute.vm_states": "BUILDING SHELVED_OFFLOADED",
    "nova.conf": "CONF",
    "nova.exception": "DiskNotFound Forbidden GlanceConnectionFailed "
    "ImageNotActive ImageNotAuthorized ImageNotFound ImageUnacceptable "
    "InstanceFaultRollback InstanceNotFound InstanceNotRescuable "
    "InstanceQuiesceNotSupported "
    "InternalError Invalid InvalidConfiguration InvalidDevicePath "
    "InvalidInput MigrationPreCheckError NovaException "
    "QemuGuestAgentNotEnabled SnapshotNotFound StorageError",
    "nova.virt.images": "IMAGE_API",
}
#: What Nova 34 has for encrypted disks, in the form of NAMES; see missing().
ENCRYPTION = {
    "nova.crypto": "create_encryption_secret delete_encryption_secret "
    "get_encryption_secret",
    "nova.virt.driver": "block_device_info_get_encrypted_disks",
}
#: Group -> Nova's options that we read; "" is DEFAULT.
OPTIONS = {
    "": "default_ephemeral_format host instances_path "
    "maximum_instance_delete_attempts running_deleted_instance_action "
    "running_deleted_instance_timeout use_cow_images",
    "glance": "default_trusted_certificate_ids enable_certificate_validation "
    "enable_rbd_download verify_glance_signatures",
    "image_cache": "manager_interval remove_unused_base_images "
    "remove_unused_original_minimum_age_seconds",
    "libvirt": "images_rbd_glance_store_name snapshots_directory",
    "workarounds": "never_download_image_if_on_rbd",
}
#: Name -> the methods of Nova's LibvirtDriver that use it, each of which we
#: know. A guest that another method starts would not be fenced, and disks that
#: another method deletes would not be spared.
USERS = {
    # In _soft_reboot Nova itself has just shut the guest down. After a
    # snapshot it starts the guest only if it has suspended it.
    "launch": "_create_guest _resume_guest_after_snapshot _soft_reboot",
    "_create_guest": "_create_guest_with_network rescue unrescue",
    "_cleanup_rbd": "_cleanup",
    "cleanup_volumes": "_cleanup_rbd unrescue",
    "_create_shared_storage_test_file": "check_can_live_migrate_destination",
}
#: How Nova fetches an image: function -> the names that it uses, in the order
#: of their first use, as one string for each known version of the function.
#: A function that uses other names may do more than we know; see unknown_step.
STEPS = {
    # Nova 28 to 34, of which distributions may lack some, and Nova 26.
    "fetch_to_raw": (
        "fetch fileutils remove_path_on_error CONF workarounds "
        "disable_deep_image_inspection IMAGE_API get do_image_deep_inspection "
        "qemu_img_info file_format exception ImageUnacceptable _ LOG warning "
        "backing_file format_specific KeyError TypeError AttributeError "
        "check_vmdk_image force_raw_images debug convert_image os unlink "
        "rename",
        "fetch fileutils remove_path_on_error qemu_img_info file_format "
        "exception ImageUnacceptable _ backing_file check_vmdk_image CONF "
        "force_raw_images LOG debug convert_image os unlink rename",
    ),
    "fetch": (
        "fileutils remove_path_on_error compute_utils disk_ops_semaphore "
        "IMAGE_API download",
    ),
    # These two are handed to Image.cache().
    "fetch_image": ("images fetch_to_raw",),
    "clone_fallback_to_fetch": (
        "CONF libvirt images_type workarounds never_download_image_if_on_rbd "
        "clone exception ImageUnacceptable excutils "
        "save_and_reraise_exception LOG warning libvirt_utils fetch_image",
    ),
}


def check_nova(allow_untested: bool = False) -> None:
    """Refuse a Nova that this backend would break, or that would break it.

    Imports Nova's libvirt driver, but none of our modules that extend it.

    :param allow_untested: let a newer Nova than NEWEST pass, with a warning,
        if what we rely on is unchanged
    :raises errors.UnsupportedNova: Nova is too old or too new, or a seam has
        changed
    """
    release = nova_version()
    major = release.split(".")[0]
    if not major.isdigit():
        raise errors.UnsupportedNova(
            f"Nova's version {release!r} does not begin with a number: "
            "install Nova from a release or from a tagged checkout"
        )
    if int(major) < OLDEST:
        raise errors.UnsupportedNova(
            f"Nova {release} is too old: nova_rbd_backend needs Nova {OLDEST} "
            "or newer: upgrade Nova"
        )
    untested = int(major) > NEWEST
    if untested and not allow_untested:
        raise errors.UnsupportedNova(
            f"Nova {release} is newer than {NEWEST}, the newest that "
            "nova_rbd_backend was tested with. If it starts guests in another "
            "way, disks may be destroyed: install the nova_rbd_backend made "
            "for this Nova, or, to test it, set [nova_rbd] "
            "allow_untested_nova to true"
        )
    if changes := changed_seams():
        raise errors.UnsupportedNova(
            f"Nova {release} differs from Nova {OLDEST} to {NEWEST} where "
            f"nova_rbd_backend relies on it ({'; '.join(changes)}): install "
            "the nova_rbd_backend made for this Nova"
        )
    if untested:
        LOG.warning(
            "Nova %s is newer than %s, the newest that nova_rbd_backend was "
            "tested with; the parts that it relies on look unchanged",
            release,
            NEWEST,
        )


def nova_version() -> str:
    """Return Nova's version, as ``nova-compute --version`` prints it."""
    version = importlib.import_module("nova.version")
    return str(version.version_string())


def changed_seams() -> list[str]:
    """Return one phrase for each thing that is missing or has changed."""
    return [
        *_changed_parameters(),
        *(f"no {name}" for name in missing(NAMES)),
        *_missing_options(),
        *_changed_users(),
    ]


def _changed_parameters() -> Iterator[str]:
    for (module_name, owner), seams in SEAMS.items():
        module = _module(module_name)
        holder = getattr(module, owner, None) if owner else module
        where = f"{module_name}.{owner}" if owner else module_name
        if holder is None:
            yield f"no {where}"
            continue
        for name, expected in seams.items():
            seam = getattr(holder, name, None)
            if not callable(seam):
                yield f"no {where}.{name}"
            elif not _same(found := _parameters(seam), expected):
                yield (
                    f"{where}.{name} takes ({' '.join(found)}) and not "
                    f"({expected})"
                )


def missing(wanted: Mapping[str, str]) -> Iterator[str]:
    """Yield the names that this Nova lacks.

    :param wanted: module -> names
    """
    for module, names in wanted.items():
        for name in names.split():
            if not hasattr(_module(module), name):
                yield f"{module}.{name}"


def _missing_options() -> Iterator[str]:
    nova_conf = importlib.import_module("nova.conf")
    for group, names in OPTIONS.items():
        known = getattr(nova_conf.CONF, group, ()) if group else nova_conf.CONF
        for name in names.split():
            if name not in known:
                yield f"no option {name} in [{group or 'DEFAULT'}]"


def unknown_step(function: Callable[..., object]) -> str | None:
    """Tell why a function of Nova's may do more than STEPS says.

    :returns: None if each name that it uses is known, in the known order
    """
    name = getattr(function, "__name__", str(function))
    code = getattr(function, "__code__", None)
    if name not in STEPS or code is None:
        return f"{name} is not known"
    used = list(_names_in(code))
    for steps in STEPS[name]:
        known = iter(steps.split())
        if all(each in known for each in used):
            return None
    return f"{name} uses ({' '.join(used)})"


def uses(function: types.FunctionType, name: str) -> bool:
    """Return whether a function of Nova's uses a name."""
    return name in _names_in(function.__code__)


def _changed_users() -> Iterator[str]:
    module = importlib.import_module("nova.virt.libvirt.driver")
    uses = {
        name: set(_names_in(method.__code__))
        for name, each in vars(module.LibvirtDriver).items()
        if (method := _function(each)) is not None
    }
    for name, expected in USERS.items():
        found = sorted(user for user, used in uses.items() if name in used)
        if found != expected.split():
            yield f"{name} is used by ({' '.join(found)}) and not ({expected})"


def _function(attribute: object) -> types.FunctionType | None:
    """Return the function behind a method's decorators; None: no method."""
    plain = getattr(attribute, "__func__", attribute)
    if not callable(plain):
        return None
    found = inspect.unwrap(plain)
    return found if isinstance(found, types.FunctionType) else None


def _names_in(code: types.CodeType) -> Iterator[str]:
    """Return the names that a function uses, and the functions within it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names_in(constant)


def _module(name: str) -> types.ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _parameters(seam: Callable[..., object]) -> list[str]:
    """Return the parameters' names, with * and ** where they have these."""
    return [
        str(each.replace(default=each.empty, annotation=each.empty))
        for each in inspect.signature(seam).parameters.values()
    ]


def _same(found: list[str], expected: str) -> bool:
    first, *others = expected.split() or [""]
    if first == "...":
        return set(others) <= set(found)
    return found == [
        name.removesuffix("?")
        for name in expected.split()
        if not name.endswith("?") or name.removesuffix("?") in found
    ]
