# SPDX-License-Identifier: Apache-2.0

"""Nova's and Glance's APIs, with the id of each request, and a time limit."""

import dataclasses
from typing import Any

import requests
from keystoneauth1 import exceptions

from tests.testbed.whole import Testbed

API_SECONDS = 90


class Refused(Exception):
    """The API refused a request, or did not answer (status 0)."""

    def __init__(self, status: int, text: str, request_id: str = ""):
        self.status = status
        self.request_id = request_id
        super().__init__(text)


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the API said to a request that it accepted."""

    request_id: str
    body: Any


class User:
    """An admin with a connection of their own, for one thread."""

    def __init__(self, testbed: Testbed):
        # A connection that several threads use may mix up their answers.
        own = testbed.for_another_thread()
        self._connection = own.openstack.connection()
        self.glance = self._connection.image

    def ask(self, method: str, path: str, body: object = None) -> Answer:
        """Send a request to Nova.

        :raises Refused: with the id of the request, if there was an answer
        """
        try:
            answer = self._connection.compute.request(
                path,
                method,
                json=body,
                timeout=API_SECONDS,
            )
        except (
            exceptions.ClientException,
            requests.RequestException,
        ) as error:
            raise Refused(0, f"{type(error).__name__}: {error}") from None
        request_id = answer.headers.get("x-openstack-request-id", "")
        if answer.status_code >= 400:
            raise Refused(answer.status_code, answer.text[:300], request_id)
        return Answer(request_id, answer.json() if answer.content else {})

    def act(self, server_id: str, body: object) -> Answer:
        """Ask for an action of a server."""
        return self.ask("POST", f"/servers/{server_id}/action", body)

    def servers(self) -> dict[str, dict[str, Any]]:
        """All servers by id, those that can be restored among them."""
        everyone = "/servers/detail?all_tenants=1"
        # Nova lists these with the deleted ones only.
        restorable = f"{everyone}&deleted=true&status=SOFT_DELETED"
        return {
            server["id"]: server
            for path in (everyone, restorable)
            for server in self.ask("GET", path).body["servers"]
            if server["status"] != "DELETED"
        }

    def server(self, server_id: str) -> dict[str, Any] | None:
        """One server; None if it is gone."""
        try:
            found: dict[str, Any] = self.ask(
                "GET", f"/servers/{server_id}"
            ).body["server"]
        except Refused as error:
            if error.status == 404:
                return None
            raise
        return found


def task(server: dict[str, Any]) -> str | None:
    """What Nova is doing to the server."""
    found: str | None = server["OS-EXT-STS:task_state"]
    return found


def host(server: dict[str, Any]) -> str:
    """The host that the server is on, or ""."""
    return server.get("OS-EXT-SRV-ATTR:host") or ""
