# SPDX-License-Identifier: Apache-2.0

"""A stand-in for Neutron: no networks, no ports, empty lists.

Servers are booted with networks='none', yet Nova asks the catalog's network
endpoint for an instance's ports at boot, at each refresh of its network info
and at delete, and fails the operation when nobody answers. A real Neutron
would bring agents, bridges and a database and prove nothing about disks.

Usage: python network_endpoint.py ADDRESS PORT
"""

import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

UNLIMITED = {
    "floatingip": -1,
    "network": -1,
    "port": -1,
    "router": -1,
    "security_group": -1,
    "security_group_rule": -1,
    "subnet": -1,
}


def answer(path: str, host: str) -> tuple[int, dict[str, object]]:
    """Status and body for a GET of ``path``."""
    path = path.split("?")[0].rstrip("/").removesuffix(".json")
    if path == "":
        link = {"rel": "self", "href": f"http://{host}/v2.0"}
        version = {"id": "v2.0", "status": "CURRENT", "links": [link]}
        return 200, {"versions": [version]}
    if path == "/v2.0":
        return 200, {"resources": []}
    if path.startswith("/v2.0/quotas/"):
        return 200, {"quota": UNLIMITED}
    if match := re.fullmatch(r"/v2.0/([a-z-]+)", path):
        return 200, {match[1].replace("-", "_"): []}
    return 404, not_found(path)


def not_found(path: str) -> dict[str, object]:
    """Neutron's form of an error."""
    message = f"the testbed's stand-in for Neutron has no {path}"
    return {
        "NeutronError": {"message": message, "type": "NotFound", "detail": ""}
    }


class Handler(BaseHTTPRequestHandler):
    """Answers GET with empty lists, and all other methods with 404."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._send(*answer(self.path, self.headers.get("Host", "")))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._send(404, not_found(self.path))

    do_PUT = do_DELETE = do_POST

    def _send(self, status: int, body: dict[str, object]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


if __name__ == "__main__":
    ThreadingHTTPServer(
        (sys.argv[1], int(sys.argv[2])), Handler
    ).serve_forever()
