# SPDX-License-Identifier: Apache-2.0

"""tempest.conf for a testbed: what this cloud has, and what it can do."""

from collections.abc import Mapping

from tests.testbed import conf_file
from tests.testbed.openstack import service_conf
from tests.testbed.openstack.site_facts import REGION, Site

# No step took half of this time, on two cores at a load of 20.
BUILD_SECONDS = 300


def tempest_conf(
    site: Site, hosts: int, images: tuple[str, str], flavors: tuple[str, str]
) -> conf_file.Conf:
    """Options for Tempest; all others have their defaults (47.0.0).

    :param images: ids of the usual image and of another one
    :param flavors: ids of the usual flavor and of a larger one
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
        # With neutron False Tempest would skip classes that never use a
        # network, because they say that their servers may have one.
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
        # Nova's own default; Tempest then also tests what readers and
        # managers may do.
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
        # Otherwise all tests of live migration are skipped, also those that
        # leave the kind of migration to Nova.
        "block_migration_for_live_migration": True,
        "interface_attach": False,
        "metadata_service": False,
        "attach_encrypted_volume": False,
        "nova_policy_roles": "admin,manager,member,reader",
        "scheduler_enabled_filters": scheduler["enabled_filters"],
    }
