# SPDX-License-Identifier: Apache-2.0

"""Is this a Nova whose seams have the shape that this backend relies on?

The seams changed once between Nova 26 and 34 (``safe`` came with 30). This
module lists the parameters of all that we override or call, so that a
nova-compute with other parameters stops when it starts, with one line in its
log, and not during somebody's resize.
"""

import importlib
import inspect
from collections.abc import Callable

from oslo_log import log as logging

from nova_rbd_backend import errors

LOG = logging.getLogger(__name__)

OLDEST = 26
NEWEST = 34

# Parameter names in order; "?" marks a parameter that some releases lack.
_DRIVER = {
    "__init__": "self virtapi read_only",
    "init_host": "self host",
    "cleanup": "self context instance network_info block_device_info "
    "destroy_disks migrate_data destroy_vifs destroy_secrets",
    "_cleanup_rbd": "self instance",
    "delete_instance_files": "self instance",
    "spawn": "self context instance image_meta injected_files admin_password "
    "allocations network_info block_device_info power_on accel_info",
    "_create_guest": "self context xml instance power_on pause "
    "post_xml_callback",
    "check_can_live_migrate_destination": "self context instance "
    "src_compute_info dst_compute_info block_migration disk_over_commit",
    "check_can_live_migrate_source": "self context instance "
    "dest_check_data block_device_info",
    "_create_shared_storage_test_file": "self instance",
    "rollback_live_migration_at_destination": "self context instance "
    "network_info block_device_info destroy_disks migrate_data",
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
    ("nova.virt.libvirt.host", "Host"): {"get_connection": "self"},
    ("nova.compute.provider_tree", "ProviderTree"): {
        "data": "self name_or_uuid",
        "update_inventory": "self name_or_uuid inventory generation",
    },
    ("nova.scheduler.client.report", "SchedulerReportClient"): {
        "get_allocations_for_resource_provider": "self context rp_uuid",
    },
    ("nova.virt.images", None): {
        "qemu_img_info": "path format",
        "convert_image": "source dest in_format out_format run_as_root "
        "compress src_encryption? dest_encryption?",
    },
    ("nova.virt.libvirt.utils", None): {
        "get_instance_path": "instance relative",
        "find_disk": "guest",
        "get_disk_type_from_path": "path",
    },
}


def check_nova() -> None:
    """Refuse a Nova that this backend would break, or that would break it.

    A newer Nova than NEWEST passes with a warning if its seams are unchanged.

    :raises errors.UnsupportedNova: Nova is too old, or a seam has changed
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
    if changes := changed_seams():
        raise errors.UnsupportedNova(
            f"Nova {release} differs from Nova {OLDEST} to {NEWEST} where "
            f"nova_rbd_backend relies on it ({'; '.join(changes)}): install "
            "the nova_rbd_backend made for this Nova"
        )
    if int(major) > NEWEST:
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
    """Return one phrase for each seam that is missing or has changed."""
    changes = []
    for (module_name, owner), seams in SEAMS.items():
        module = importlib.import_module(module_name)
        holder = getattr(module, owner, None) if owner else module
        for name, expected in seams.items():
            path = ".".join(filter(None, (module_name, owner, name)))
            seam = getattr(holder, name, None)
            if not callable(seam):
                changes.append(f"no {path}")
            elif not _same(found := _parameters(seam), expected):
                changes.append(
                    f"{path} takes ({' '.join(found)}) and not ({expected})"
                )
    return changes


def _parameters(seam: Callable[..., object]) -> list[str]:
    """Return the parameters' names, with * and ** where they have these."""
    return [
        str(each.replace(default=each.empty, annotation=each.empty))
        for each in inspect.signature(seam).parameters.values()
    ]


def _same(found: list[str], expected: str) -> bool:
    return found == [
        name.removesuffix("?")
        for name in expected.split()
        if not name.endswith("?") or name.removesuffix("?") in found
    ]
