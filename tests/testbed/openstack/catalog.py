# SPDX-License-Identifier: Apache-2.0

"""Register the services at Keystone: users, endpoints."""

import openstack
import openstack.connection

from tests.testbed.openstack.site_facts import REGION, Site

SERVICES = (
    ("placement", "placement", "placement", ""),
    ("glance", "image", "glance", ""),
    ("nova", "compute", "nova", "/v2.1"),
    ("neutron", "network", "network", ""),
    # The type that Nova looks for ([cinder] catalog_info).
    ("cinder", "volumev3", "volume", "/v3"),
)


def fill(site: Site, connection: openstack.connection.Connection) -> None:
    """Make the service users and endpoints that do not exist yet."""
    done = site.folder / "catalog-complete"
    if done.exists():
        return
    identity = connection.identity
    project = identity.find_project(
        "service", domain_id="default"
    ) or identity.create_project(name="service", domain_id="default")
    roles = [
        identity.find_role(name) or identity.create_role(name=name)
        for name in ("admin", "service")
    ]
    for user_name, kind, api, path in SERVICES:
        user = identity.find_user(
            user_name, domain_id="default"
        ) or identity.create_user(
            name=user_name,
            password=site.password,
            domain_id="default",
            default_project_id=project.id,
        )
        for role in roles:
            identity.assign_project_role_to_user(project, user, role)
        service = identity.find_service(user_name) or identity.create_service(
            name=user_name, type=kind
        )
        have = {e.interface for e in identity.endpoints(service_id=service.id)}
        for interface in {"public", "internal", "admin"} - have:
            identity.create_endpoint(
                service_id=service.id,
                interface=interface,
                url=site.url(api, path),
                region_id=REGION,
            )
    done.touch()
