# SPDX-License-Identifier: Apache-2.0

"""Move servers between compute hosts through Nova's API, each wait limited."""

import openstack.connection
from openstack.compute.v2.server import Server
from openstack.exceptions import raise_from_response

from tests.testbed.openstack.servers import Servers
from tests.testbed.process import TestbedError, wait_for

MOVE_SECONDS = 120
ARRIVAL_SECONDS = 15
FINAL = ("completed", "error", "failed", "cancelled")


class Moves:
    """What an admin does with a server when there is more than one host."""

    def __init__(self, connection: openstack.connection.Connection):
        self._nova = connection.compute
        self._servers = Servers(connection)

    def where(self, server: Server) -> str:
        """Name of the host that Nova says it is on; "" if it is on none."""
        return self._servers.get(server).compute_host or ""

    def cold(self, server: Server, host: str) -> None:
        """Migrate a server and confirm that; it is ACTIVE there on return.

        :raises TestbedError: it is not on that host in the end
        """
        self._nova.migrate_server(server, host=host)
        self._servers.wait(server, "VERIFY_RESIZE", MOVE_SECONDS)
        self.confirm(server)
        self._arrived(server, host)

    def resize(self, server: Server, flavor: str, host: str) -> None:
        """Resize a server to ``host``, where it waits to be confirmed.

        A resize can't name its host, so all other hosts are disabled
        meanwhile.
        """
        others = [
            service
            for service in self._nova.services(binary="nova-compute")
            if service.host != host and service.status == "enabled"
        ]
        for service in others:
            self._nova.disable_service(service)
        try:
            self._nova.resize_server(server, flavor)
            self._servers.wait(server, "VERIFY_RESIZE", MOVE_SECONDS)
        finally:
            for service in others:
                self._nova.enable_service(service)
        self._arrived(server, host)

    def confirm(self, server: Server) -> None:
        """Confirm a resize or a migration."""
        self._nova.confirm_server_resize(server)
        self._servers.wait(server)

    def revert(self, server: Server) -> None:
        """Revert a resize or a migration that was not confirmed."""
        self._nova.revert_server_resize(server)
        self._servers.wait(server)

    def begin_live(self, server: Server, host: str) -> None:
        """Ask for a live migration; don't wait."""
        self._nova.live_migrate_server(
            server, host=host, block_migration="auto"
        )

    def live(self, server: Server, host: str) -> None:
        """Migrate a running server.

        :raises TestbedError: it did not arrive on that host
        """
        self.begin_live(server, host)

        def ended() -> str:
            status = str(self.last(server)["status"])
            return status if status in FINAL else ""

        status = wait_for(
            f"the migration of {server.name} {server.id} ends",
            ended,
            MOVE_SECONDS,
            interval_seconds=0.25,
        )
        if status != "completed":
            raise TestbedError(
                f"live migration of {server.id} to {host}: {status}"
            )
        self._servers.wait(server)
        self._arrived(server, host)

    def live_failed(self, server: Server) -> None:
        """Wait until a live migration has failed and been rolled back.

        Nova 32 to 34 then set the server to ERROR, although it runs as before:
        LibvirtDriver._live_migration raises libvirt's error once more after
        the rollback. This resets the state, as an admin would.
        """
        self._servers.wait(server, "ERROR", MOVE_SECONDS)
        self._nova.reset_server_state(server, "active")
        self._servers.wait(server)

    def abort_live(self, server: Server) -> None:
        """Abort the live migration that is under way, once it can be."""
        wait_for(
            f"the live migration of {server.id} is running",
            lambda: self.last(server)["status"] == "running",
            MOVE_SECONDS,
        )
        self._nova.abort_server_migration(
            self.last(server)["id"], server, ignore_missing=False
        )

    def evacuate(self, server: Server, host: str) -> None:
        """Start a server, whose host is down, on ``host``."""
        self._nova.evacuate_server(server, host=host)
        self._servers.wait(server, limit_seconds=MOVE_SECONDS)
        self._arrived(server, host)

    def unshelve(self, server: Server, host: str | None = None) -> None:
        """Bring a shelved server back; to ``host`` if it was offloaded."""
        where = {"host": host} if host else None
        answer = self._nova.post(
            f"/servers/{server.id}/action",
            json={"unshelve": where},
            # The first version that can name a host.
            microversion="2.91",
        )
        raise_from_response(answer)
        self._servers.wait(server, limit_seconds=MOVE_SECONDS)

    def last(self, server: Server) -> dict[str, object]:
        """The newest record of a move of this server.

        :raises IndexError: it was never moved
        """
        answer = self._nova.get(f"/os-migrations?instance_uuid={server.id}")
        found = answer.json()["migrations"]
        return sorted(found, key=lambda record: int(record["id"]))[-1]

    def _arrived(self, server: Server, host: str) -> None:
        """Wait until Nova says that the server is on a host.

        After an evacuation Nova says so a moment after the server is ACTIVE
        (Nova 34, compute/manager.py, rebuild_instance).
        """
        wait_for(
            f"server {server.id} is on {host}",
            lambda: self.where(server) == host,
            ARRIVAL_SECONDS,
        )
