# SPDX-License-Identifier: Apache-2.0

"""A stand-in for Cinder, with what Nova asks of it for existing volumes.

Whoever makes a volume's RBD image registers the volume, with the connection
that Cinder's RBD driver would give. From then on the volume's state follows
Nova's calls as it does in Cinder (attachments API, microversion 3.44, the
oldest that Nova 34 accepts). The stand-in touches no storage; it only records
a snapshot. A real Cinder would bring its own database and three daemons and
prove nothing more about Nova's disks.

Usage: python volume_endpoint.py ADDRESS PORT
"""

import json
import re
import sys
import threading
import uuid
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

MICROVERSION = "3.44"
CREATED = "2026-01-01T00:00:00.000000"

Body = dict[str, Any]
Answer = tuple[int, Body | None]


class Refused(Exception):
    """A request that Cinder would refuse; the status and text say why."""

    def __init__(self, status: int, text: str):
        self.status = status
        super().__init__(text)


class Cinder:
    """Volumes, attachments and snapshots, in memory."""

    def __init__(self) -> None:
        self._volumes: dict[str, Body] = {}
        self._connections: dict[str, Body] = {}
        self._attachments: dict[str, Body] = {}
        self._snapshots: dict[str, Body] = {}

    # -- for the tests that make volumes -------------------------------------

    def register(self, body: Body) -> Answer:
        """Register a volume: id, size in GiB, connection, more for GET."""
        volume_id = body["id"]
        self._connections[volume_id] = body.pop("connection")
        self._volumes[volume_id] = {
            "name": f"of the testbed {volume_id}",
            "description": "",
            "status": "available",
            "availability_zone": "nova",
            "created_at": CREATED,
            "multiattach": False,
            "encrypted": False,
            "bootable": "false",
            "volume_type": None,
            "snapshot_id": None,
            "metadata": {},
            **body,
        }
        return self.volume(volume_id)

    def forget(self, volume_id: str) -> Answer:
        """Drop a volume that nobody has attached."""
        if self._of_volume(volume_id):
            raise Refused(400, f"volume {volume_id} is attached")
        self._volume(volume_id)
        del self._volumes[volume_id], self._connections[volume_id]
        return 204, None

    # -- volumes -------------------------------------------------------------

    def volume(self, volume_id: str) -> Answer:
        attached = [
            {
                "id": volume_id,
                "volume_id": volume_id,
                "server_id": attachment["instance"],
                "attachment_id": attachment["id"],
                "device": attachment["connection_info"].get("mountpoint"),
                "host_name": attachment["host"],
            }
            for attachment in self._of_volume(volume_id)
            if attachment["status"] == "attached"
        ]
        found = self._volume(volume_id)
        return 200, {"volume": {**found, "attachments": attached}}

    def act(self, volume_id: str, body: Body) -> Answer:
        volume = self._volume(volume_id)
        (action,) = body
        changes = {
            "os-begin_detaching": ("in-use", "detaching"),
            "os-roll_detaching": ("detaching", "in-use"),
        }
        if action not in changes:
            raise Refused(400, f"the testbed's stand-in has no {action}")
        before, after = changes[action]
        if volume["status"] != before:
            raise Refused(400, f"{action}: volume is {volume['status']}")
        volume["status"] = after
        return 202, None

    # -- attachments ---------------------------------------------------------

    def attach(self, body: Body) -> Answer:
        """Reserve a volume; with a connector, as before a move, connect it."""
        wanted = body["attachment"]
        volume = self._volume(wanted["volume_uuid"])
        instance = wanted["instance_uuid"]
        others = self._of_volume(volume["id"])
        if any(a["instance"] != instance for a in others):
            raise Refused(400, f"volume {volume['id']} is of another server")
        attachment_id = str(uuid.uuid4())
        attachment = {
            "id": attachment_id,
            "volume_id": volume["id"],
            "instance": instance,
            "status": "reserved",
            "attach_mode": "rw",
            "attached_at": "",
            "detached_at": "",
            "host": None,
            "connection_info": {},
        }
        self._attachments[attachment_id] = attachment
        if volume["status"] == "available":
            volume["status"] = "reserved"
        if wanted.get("connector"):
            self._connect(attachment, wanted["connector"])
        return self.attachment(attachment_id)

    def attachment(self, attachment_id: str) -> Answer:
        return 200, {"attachment": self._attachment(attachment_id)}

    def attachments(self, **of: str) -> Answer:
        """Attachments of a volume (volume_id) or a server (instance_id)."""
        names = {"volume_id": "volume_id", "instance_id": "instance"}
        wanted = {names[name]: value for name, value in of.items()}
        found = [
            attachment
            for attachment in self._attachments.values()
            if wanted.items() <= attachment.items()
        ]
        return 200, {"attachments": found}

    def connect(self, attachment_id: str, body: Body) -> Answer:
        """Tell a host how to reach the volume: the registered connection."""
        attachment = self._attachment(attachment_id)
        self._connect(attachment, body["attachment"]["connector"])
        return self.attachment(attachment_id)

    def complete(self, attachment_id: str, body: Body) -> Answer:
        attachment = self._attachment(attachment_id)
        if set(body) != {"os-complete"}:
            raise Refused(400, f"the testbed's stand-in has no {list(body)}")
        attachment["status"] = "attached"
        self._volume(attachment["volume_id"])["status"] = "in-use"
        return 204, None

    def detach(self, attachment_id: str) -> Answer:
        attachment = self._attachment(attachment_id)
        del self._attachments[attachment_id]
        left = self._of_volume(attachment["volume_id"])
        if not left:
            self._volume(attachment["volume_id"])["status"] = "available"
        return 200, {"attachments": left}

    # -- snapshots -----------------------------------------------------------

    def snapshot(self, body: Body) -> Answer:
        wanted = body["snapshot"]
        volume = self._volume(wanted["volume_id"])
        snapshot_id = str(uuid.uuid4())
        self._snapshots[snapshot_id] = {
            "id": snapshot_id,
            "volume_id": volume["id"],
            "size": volume["size"],
            "name": wanted["name"],
            "description": wanted["description"],
            "status": "available",
            "progress": "100%",
            "created_at": CREATED,
            "metadata": {},
        }
        return 202, {"snapshot": self._snapshots[snapshot_id]}

    def snapshots(self, **of: str) -> Answer:
        found = [
            s for s in self._snapshots.values() if of.items() <= s.items()
        ]
        return 200, {"snapshots": found}

    # -- their parts ---------------------------------------------------------

    def _volume(self, volume_id: str) -> Body:
        return _found(self._volumes, volume_id, "volume")

    def _attachment(self, attachment_id: str) -> Body:
        return _found(self._attachments, attachment_id, "attachment")

    def _of_volume(self, volume_id: str) -> list[Body]:
        return [
            attachment
            for attachment in self._attachments.values()
            if attachment["volume_id"] == volume_id
        ]

    def _connect(self, attachment: Body, connector: Body) -> None:
        volume = self._volume(attachment["volume_id"])
        attachment["status"] = "attaching"
        attachment["host"] = connector["host"]
        attachment["connection_info"] = {
            **self._connections[volume["id"]],
            "attachment_id": attachment["id"],
            "mountpoint": connector.get("mountpoint"),
        }
        if volume["status"] == "reserved":
            volume["status"] = "attaching"


def _found(things: Mapping[str, Body], name: str, kind: str) -> Body:
    if name not in things:
        raise Refused(404, f"{kind} {name} could not be found.")
    return things[name]


def versions(host: str) -> Body:
    """The answer at the root path."""
    version = {
        "id": "v3.0",
        "status": "CURRENT",
        "version": MICROVERSION,
        "min_version": "3.0",
        "links": [{"rel": "self", "href": f"http://{host}/v3/"}],
    }
    return {"versions": [version]}


LIMITS = {"totalSnapshotsUsed": 0, "maxTotalSnapshots": -1}
ID = "([^/]+)"
Routes = tuple[tuple[str, str, Callable[..., Answer]], ...]


def routes(cinder: Cinder) -> Routes:
    """Method, path and function; it gets the path's groups, then the body."""
    return (
        ("POST", "/testbed/volumes", cinder.register),
        ("DELETE", f"/testbed/volumes/{ID}", cinder.forget),
        ("GET", f"/v3/volumes/{ID}", cinder.volume),
        ("POST", f"/v3/volumes/{ID}/action", cinder.act),
        ("POST", "/v3/attachments", cinder.attach),
        ("GET", "/v3/attachments", cinder.attachments),
        ("GET", f"/v3/attachments/{ID}", cinder.attachment),
        ("PUT", f"/v3/attachments/{ID}", cinder.connect),
        ("DELETE", f"/v3/attachments/{ID}", cinder.detach),
        ("POST", f"/v3/attachments/{ID}/action", cinder.complete),
        ("POST", "/v3/snapshots", cinder.snapshot),
        ("GET", "/v3/snapshots", cinder.snapshots),
        (
            "GET",
            "/v3/limits",
            lambda: (200, {"limits": {"rate": [], "absolute": LIMITS}}),
        ),
    )


class Server(ThreadingHTTPServer):
    """One Cinder for all requests, which come in parallel."""

    def __init__(self, address: str, port: int):
        super().__init__((address, port), Handler)
        self.routes = routes(Cinder())
        self.lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            status, body = self._answer(json.loads(data) if data else None)
        except Refused as error:
            status = error.status
            body = {"error": {"code": status, "message": str(error)}}
        text = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_POST = do_PUT = do_DELETE = do_GET

    def _answer(self, body: Body | None) -> Answer:
        url = urlsplit(self.path)
        path = url.path.rstrip("/")
        if self.command == "GET" and path in ("", "/v3"):
            return 200, versions(self.headers.get("Host", ""))
        given = [] if body is None else [body]
        for method, pattern, answer in self.server.routes:
            match = re.fullmatch(pattern, path)
            if match and method == self.command:
                with self.server.lock:
                    query = dict(parse_qsl(url.query))
                    return answer(*match.groups(), *given, **query)
        raise Refused(
            404, f"the testbed's stand-in has no {self.command} {path}"
        )


if __name__ == "__main__":
    Server(sys.argv[1], int(sys.argv[2])).serve_forever()
