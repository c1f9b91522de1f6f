# SPDX-License-Identifier: Apache-2.0

"""tempest.conf for a testbed: what this cloud has, and what it can."""

from collections.abc import Mapping

from tests.testbed import conf_file
from tests.testbed.openstack import service_conf
from tests.testbed.openstack.site_facts import REGION, Site

# No step took half of it on two cores at a load of 20.
BUILD_SECONDS = 300


def tempest_conf(
    site: Site, hosts: int, images: tuple[str, str], flavors: tuple[str, str]
) -> conf_file.Conf:
    """All that Tempest is told; the rest are its defaults (47.0.0).

    :param images: ids, usual one and the other one
    :param flavors: ids, usual one and a larger one
    """
    folder = site.folder.parent / "tempest"
    return {
        "DEFAULT": {"log_file": folder / "tempest.log"},
        "oslo_concurrency": {"lock_path": folder / "locks"},
        "auth": {
            "admin_username": "admin",
            "admin_project_name": "admin",
            "admin_password": site.password,
            "admin_domain_name": "Default",
            # The stand-in for Neutron has no networks and takes none.
            "create_isolated_networks": False,
        },
        "identity": {
            "uri_v3": site.url("keystone", "/v3"),
            "region": REGION,
        },
        # False would skip classes that never touch a network, as they say
        # that their servers may have one.
        "service_available": {
            "neutron": True,
            "cinder": False,
            "swift": False,
            "horizon": False,
        },
        # Nothing can be reached in a guest without a network.
        "validation": {"run_validation": False},
        "compute": {
            "image_ref": images[0],
            "image_ref_alt": images[1],
            "flavor_ref": flavors[0],
            "flavor_ref_alt": flavors[1],
            "build_timeout": BUILD_SECONDS,
            "min_compute_nodes": hosts,
            "hypervisor_type": "QEMU",
            # Without these Tempest leaves out each test with a microversion.
            "min_microversion": "2.1",
            "max_microversion": "latest",
        },
        "image": {"build_timeout": BUILD_SECONDS},
        "compute-feature-enabled": _features(site),
        # Nova's own default; also has readers and managers do what they may.
        "enforce_scope": {"nova": True},
    }


def _features(site: Site) -> Mapping[str, object]:
    scheduler = service_conf.nova(site)["filter_scheduler"]
    return {
        "resize": True,
        "shelve_migrate": True,
        "stable_rescue": True,
        "personality": True,
        "hostname_fqdn_sanitization": True,
        # Else all tests of live migration are skipped, also those that leave
        # the kind to Nova.
        "block_migration_for_live_migration": True,
        "interface_attach": False,
        "metadata_service": False,
        "attach_encrypted_volume": False,
        "nova_policy_roles": "admin,manager,member,reader",
        "scheduler_enabled_filters": scheduler["enabled_filters"],
    }
