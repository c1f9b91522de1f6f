# SPDX-License-Identifier: Apache-2.0

"""Configuration of Keystone, Placement, Glance and Nova's control services.

None of them names a log file, so that each service logs to the output of its
process, which is kept.
"""

from tests.testbed import conf_file, versions
from tests.testbed.openstack.site_facts import ADDRESS, REGION, Site

# Longer than any start takes, and shorter than a test waits.
DOWN_SECONDS = 20


def client(site: Site, user: str) -> dict[str, object]:
    """Options with which a service logs in at Keystone to call another."""
    return {
        "auth_url": site.url("keystone"),
        "auth_type": "password",
        "project_domain_id": "default",
        "user_domain_id": "default",
        "project_name": "service",
        "username": user,
        "password": site.password,
        "region_name": REGION,
    }


def authtoken(site: Site, user: str) -> dict[str, object]:
    """Options with which a service checks its callers' tokens."""
    return {
        **client(site, user),
        "region_name": None,
        "www_authenticate_uri": site.url("keystone"),
        "memcached_servers": f"{ADDRESS}:{site.ports['memcached']}",
    }


def write_all(site: Site) -> None:
    """Write every control service's configuration below etc/."""
    for name, conf in (
        ("keystone", keystone(site)),
        ("placement", placement(site)),
        ("glance-api", glance(site)),
        ("nova", nova(site)),
    ):
        folder = site.etc(name.removesuffix("-api"))
        conf_file.write(folder / f"{name}.conf", conf)
    for service, name in (
        ("glance", "glance-api-paste.ini"),
        ("nova", "api-paste.ini"),
    ):
        packaged = site.venv / "etc" / service / name
        (site.etc(service) / name).write_bytes(packaged.read_bytes())


def keystone(site: Site) -> conf_file.Conf:
    etc = site.etc("keystone")
    keys = {"key_repository": etc / "fernet-keys"}
    return {
        "database": {"connection": site.database("keystone")},
        # A testbed may be kept for days.
        "token": {"provider": "fernet", "expiration": 7 * 86400},
        # The default, 12, costs a third of a second of CPU for each login.
        "identity": {"password_hash_rounds": 4},
        "fernet_tokens": keys,
        # For logins of several steps. Not used, but Keystone does not start
        # without, and would look for the keys below /etc.
        "fernet_receipts": keys,
        "credential": {"key_repository": etc / "credential-keys"},
        "cache": {
            "enabled": True,
            "backend": "oslo_cache.memcache_pool",
            "memcache_servers": f"{ADDRESS}:{site.ports['memcached']}",
        },
    }


def placement(site: Site) -> conf_file.Conf:
    return {
        "placement_database": {"connection": site.database("placement")},
        "api": {"auth_strategy": "keystone"},
        "keystone_authtoken": authtoken(site, "placement"),
    }


def glance(site: Site) -> conf_file.Conf:
    state = site.folder / "glance"
    for name in ("files", "staging", "tasks"):
        (state / name).mkdir(parents=True, exist_ok=True)
    return {
        "DEFAULT": {
            "debug": True,
            "enabled_backends": "rbd:rbd, snapshots:rbd, file:file",
            # Nova clones only images whose location it can see.
            "show_image_direct_url": True,
            # Nova 32 and later add locations by the API for services.
            "show_multiple_locations": versions.nova_major() < 32,
        },
        "database": {"connection": site.database("glance")},
        "glance_store": {"default_backend": "rbd"},
        "rbd": {
            "rbd_store_pool": "images",
            "rbd_store_user": "glance",
            "rbd_store_ceph_conf": site.ceph_conf,
        },
        # The store for the pool in which Nova makes snapshots of servers.
        "snapshots": {
            "rbd_store_pool": "snapshots",
            "rbd_store_user": "glance",
            "rbd_store_ceph_conf": site.ceph_conf,
        },
        "file": {"filesystem_store_datadir": state / "files"},
        "os_glance_staging_store": {
            "filesystem_store_datadir": state / "staging"
        },
        "os_glance_tasks_store": {"filesystem_store_datadir": state / "tasks"},
        "paste_deploy": {"flavor": "keystone"},
        "oslo_concurrency": {"lock_path": site.folder / "locks"},
        "keystone_authtoken": authtoken(site, "glance"),
    }


def nova_clients(site: Site) -> conf_file.Conf:
    """The services Nova calls, the same for control and compute."""
    as_nova = client(site, "nova")
    return {
        "keystone_authtoken": authtoken(site, "nova"),
        "service_user": {"send_service_user_token": True, **as_nova},
        "glance": {"service_type": "image", **as_nova},
        "placement": as_nova,
        "neutron": as_nova,
        "cinder": as_nova,
        "vnc": {"enabled": False},
    }


def nova(site: Site) -> conf_file.Conf:
    """For the API, the conductor, the scheduler and nova-manage.

    [database] is cell1's; nova-manage finds cell0's by its default name.
    """
    return {
        "DEFAULT": {
            "debug": True,
            "state_path": site.folder / "nova",
            "transport_url": site.transport_url,
            "my_ip": ADDRESS,
            "host": "controller",
            "enabled_apis": "osapi_compute",
            "allow_resize_to_same_host": True,
            "long_rpc_timeout": 600,
            "report_interval": 5,
            "service_down_time": DOWN_SECONDS,
            # Periodic tasks would first wait a random minute.
            "periodic_fuzzy_delay": 0,
            # The defaults keep a stopped service on its queue for minutes.
            "graceful_shutdown_timeout": 2,
            "manager_shutdown_timeout": 1,
        },
        "api_database": {"connection": site.database("nova_api")},
        "database": {"connection": site.database("nova")},
        "api": {"auth_strategy": "keystone"},
        "oslo_concurrency": {"lock_path": site.folder / "locks"},
        # A new compute host can be used within seconds.
        "scheduler": {
            "workers": 1,
            # A failed boot shows its cause. With more attempts Nova hides it
            # behind "Exhausted all hosts available for retrying".
            "max_attempts": 1,
            "discover_hosts_in_cells_interval": 2,
        },
        "conductor": {"workers": 1},
        "filter_scheduler": {
            "enabled_filters": ",".join(
                (
                    "ComputeFilter",
                    "ComputeCapabilitiesFilter",
                    "ImagePropertiesFilter",
                    "ServerGroupAntiAffinityFilter",
                    "ServerGroupAffinityFilter",
                    "SameHostFilter",
                    "DifferentHostFilter",
                )
            )
        },
        **nova_clients(site),
    }
