# SPDX-License-Identifier: Apache-2.0

"""Which instances the clouds have: the door to Nova's API.

Every doubt raises NovaUnclear, because an answer that lacks servers would make
orphans of their disks. Nova leaves servers out of its answer if the user may
not see all of them, or while a cell is down.
"""

import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keystoneauth1.exceptions
import openstack.config
import openstack.connection
import openstack.exceptions

from nova_rbd_backend import errors

# Nova waits for a cell for 60 s before it leaves it out (nova/context.py:
# CELL_TIMEOUT).
_TIMEOUT_SECONDS = 120
# From 2.69 on, a server of a cell that is down may count as not found (Nova
# 34, compute/api.py: _get_instance_from_cell). Before, it is an error.
_MICROVERSION = "2.1"
_FAILURES = (
    openstack.exceptions.SDKException,
    keystoneauth1.exceptions.ClientException,
)


class Cloud:
    """Nova's API in one region, with all of its cells."""

    def __init__(self, connection: Any, name: str):
        self._connection = connection
        self.name = name

    def instances(self) -> frozenset[str]:
        """Return the UUIDs of the instances in Nova's lists.

        Soft-deleted instances, and those of cells that are down, may be
        missing. For an instance that is not listed, ask ``knows``.

        :raises errors.NovaUnclear: Nova's answer is not certain
        """
        listed = self._listed()
        on_hosts = self._on_hosts()
        for uuid in sorted(on_hosts - listed):
            # Soft-deleted, made just now, deleted just now, or hidden.
            if not self.knows(uuid) and uuid in self._on_hosts():
                raise self._blind(uuid)
        self._check_sight()
        return listed | on_hosts

    def knows(self, uuid: str) -> bool:
        """Return whether Nova has the instance, in any state and any cell.

        :raises errors.NovaUnclear: Nova's answer is not certain
        """
        with self._asked(f"for server {uuid}"):
            answer = self._connection.compute.get(
                f"/servers/{uuid}",
                microversion=_MICROVERSION,
                raise_exc=False,
            )
        if answer.status_code == 200:
            return True
        # The 404 of a proxy, or of a wrong address, proves nothing.
        if answer.status_code == 404 and _is_novas(answer):
            return False
        raise errors.NovaUnclear(
            f"Nova of {self.name} answers {answer.status_code} for server "
            f"{uuid}, so it is not known whether the server exists: see the "
            "log of its API, which gives such an answer when a cell is down"
        )

    def _listed(self) -> frozenset[str]:
        with self._asked("for the servers of all projects"):
            servers = self._connection.compute.servers(
                details=False, all_projects=True
            )
            return frozenset(server.id for server in servers)

    def _on_hosts(self) -> frozenset[str]:
        """Return the servers of all hosts, with the soft-deleted ones."""
        with self._asked("for the servers of each hypervisor"):
            hypervisors = self._connection.compute.hypervisors(
                details=False, with_servers=True
            )
            return frozenset(
                server["uuid"]
                for hypervisor in hypervisors
                for server in hypervisor.servers or ()
            )

    def _check_sight(self) -> None:
        """Check that a server of another project, if any, can be seen."""
        for direction in ("asc", "desc"):
            with self._asked("for the servers of all projects"):
                found = self._connection.compute.servers(
                    all_projects=True,
                    sort_key="project_id",
                    sort_dir=direction,
                    limit=1,
                    paginated=False,
                )
                others = [
                    server.id
                    for server in found
                    if server.project_id != self._connection.current_project_id
                ]
            for uuid in others:
                if not self.knows(uuid) and uuid in self._listed():
                    raise self._blind(uuid)

    def _blind(self, uuid: str) -> errors.NovaUnclear:
        return errors.NovaUnclear(
            f"Nova of {self.name} has server {uuid}, but hides it from this "
            "user: use the credentials of an administrator, who sees the "
            "servers of all projects"
        )

    @contextlib.contextmanager
    def _asked(self, what: str) -> Iterator[None]:
        try:
            yield
        except openstack.exceptions.ForbiddenException as error:
            raise errors.NovaUnclear(
                f"Nova of {self.name} may not be asked {what}: use the "
                "credentials of an administrator"
            ) from error
        except _FAILURES as error:
            raise errors.NovaUnclear(
                f"Nova of {self.name} was asked {what}, and failed: "
                f"{_line(error)}"
            ) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _is_novas(answer: Any) -> bool:
    try:
        return "itemNotFound" in answer.json()
    except ValueError:
        return False


def connect(
    names: Sequence[str] | None, regions: Sequence[str] | None
) -> list[Cloud]:
    """Return the clouds of clouds.yaml with these names.

    :param names: None: the cloud that OS_* names
    :param regions: of each cloud; None: all regions that have a Nova
    :raises errors.NovaUnclear: a login is refused, or fails
    """
    # keystoneauth would warn of what is raised here, too.
    logging.getLogger("keystoneauth").setLevel(logging.ERROR)
    found = []
    for name in names or (None,):
        with _login(name):
            for region in regions or _regions(name):
                connection = openstack.connection.Connection(
                    config=_config(name, region)
                )
                found.append(Cloud(connection, _shown(name, region)))
    return found


def _shown(name: str | None, region: str | None) -> str:
    return "/".join(filter(None, (name or "OS_*", region)))


def _regions(name: str | None) -> Iterable[str | None]:
    """Return the regions with a Nova.

    All of them, even if clouds.yaml names one: others may use the same pool.
    """
    catalog = _config(name, None).get_service_catalog()
    if catalog is None:  # no Keystone: one address
        return (None,)
    found = catalog.get_endpoints_data(service_type="compute")
    regions = {
        endpoint.region_name
        for endpoints in found.values()
        for endpoint in endpoints
    }
    if not regions:
        raise errors.NovaUnclear(
            f"the catalog of cloud {_shown(name, None)} has no Nova (compute)"
        )
    return sorted(regions)


def _config(name: str | None, region: str | None) -> Any:
    wanted = {"region_name": region} if region else {}
    found = openstack.config.OpenStackConfig(app_name="nova-rbd").get_one(
        cloud=name, **wanted
    )
    if found.config.get("api_timeout") is None:
        found.config["api_timeout"] = _TIMEOUT_SECONDS
    return found


@contextlib.contextmanager
def _login(name: str | None) -> Iterator[None]:
    try:
        yield
    except _FAILURES as error:
        raise errors.NovaUnclear(
            f"no login at cloud {_shown(name, None)}: {_line(error)}: set "
            "OS_*, or name a cloud of clouds.yaml with --os-cloud"
        ) from error
