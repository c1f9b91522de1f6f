# SPDX-License-Identifier: Apache-2.0

"""nova.conf of one nova-compute, with a choice of image backend."""

import pathlib

from tests.testbed import conf_file
from tests.testbed.openstack import service_conf
from tests.testbed.openstack.site_facts import Site

# Any fixed UUID: libvirt's secret with client.nova's key, on every host.
SECRET_UUID = "457eb676-33da-42ec-9a8c-9293d545c337"
BACKENDS = ("plugin", "in-tree")


def backend_conf(site: Site, backend: str) -> conf_file.Conf:
    """The options that choose where disks are kept."""
    libvirt: dict[str, object] = {
        "images_rbd_ceph_conf": site.ceph_conf,
        "disk_cachemodes": "network=writeback",
        "hw_disk_discard": "unmap",
    }
    if backend == "in-tree":
        libvirt |= {
            "images_type": "rbd",
            "images_rbd_pool": "vms",
            "rbd_user": "nova",
            "rbd_secret_uuid": SECRET_UUID,
        }
        driver = {"compute_driver": "libvirt.LibvirtDriver"}
        return {"DEFAULT": driver, "libvirt": libvirt}
    if backend != "plugin":
        raise ValueError(f"backend {backend!r} is none of {BACKENDS}")
    return {
        "DEFAULT": {
            "compute_driver": "rbd_backend.LibvirtDriver",
            "libvirt_images_type": "rbd",
            "libvirt_images_store": "vms",
            "libvirt_images_snapshot_store": "snapshots",
            "rbd_user": "nova",
            "rbd_secret_uuid": SECRET_UUID,
        },
        "libvirt": libvirt,
    }


def host_conf(
    site: Site, host: str, address: str, state_path: pathlib.Path
) -> conf_file.Conf:
    """The options that are the same with every backend.

    :param state_path: the same path on all hosts, as live migration requires;
        each host has a folder of its own bound there
    """
    return {
        "DEFAULT": {
            "debug": True,
            "host": host,
            "my_ip": address,
            "state_path": state_path,
            "instances_path": f"{state_path}/instances",
            "transport_url": site.transport_url,
            "allow_resize_to_same_host": True,
            "long_rpc_timeout": 600,
            "report_interval": 5,
            "service_down_time": service_conf.DOWN_SECONDS,
            # A stopped nova-compute must be off its queue before the next
            # one starts, or calls are lost.
            "graceful_shutdown_timeout": 5,
            "manager_shutdown_timeout": 2,
            "shutdown_timeout": 2,
            "periodic_fuzzy_delay": 0,
            "max_concurrent_builds": 10,
            "force_raw_images": True,
            "ram_allocation_ratio": 8,
            "cpu_allocation_ratio": 100,
            "disk_allocation_ratio": 10,
            "reserved_host_memory_mb": 0,
            "network_allocate_retries": 0,
            "vif_plugging_is_fatal": False,
            "vif_plugging_timeout": 0,
            "mkisofs_cmd": "genisoimage",
        },
        "libvirt": {
            "virt_type": "qemu",
            "live_migration_scheme": "tcp",
            "live_migration_inbound_addr": address,
            "live_migration_permit_auto_converge": True,
            "wait_soft_reboot_seconds": 3,
            "sysinfo_serial": "none",
            "swtpm_enabled": False,
        },
        "oslo_concurrency": {"lock_path": f"{state_path}/locks"},
        # The emulated CPU is the same on all hosts.
        "workarounds": {"skip_cpu_compare_on_dest": True},
        **{
            context: {
                "helper_command": f"{site.bin('privsep-helper')} "
                f"--config-file {site.etc('compute')}/{host}.conf"
            }
            for context in ("nova_sys_admin", "privsep_osbrick")
        },
        **service_conf.nova_clients(site),
    }
