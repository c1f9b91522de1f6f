# SPDX-License-Identifier: Apache-2.0

"""As much of Glance's API as an upload needs; it can break uploads off."""

import contextlib
import http.server
import json
import threading

_TEXT = {"type": "string"}
SCHEMA = {
    "name": "image",
    "properties": {
        **dict.fromkeys(
            ("id", "status", "disk_format", "container_format"), _TEXT
        ),
        "size": {"type": ["null", "integer"]},
    },
    "additionalProperties": _TEXT,
}


class GlanceServer(http.server.ThreadingHTTPServer):
    """One image, queued at first.

    :ivar breaks: how the next uploads end: (number of bytes, the HTTP status
        that is answered then, or None to reset the connection)
    :ivar data: the data of the image; None if no upload was complete
    """

    def __init__(self, image_id, breaks):
        super().__init__(("127.0.0.1", 0), _Request)
        self.image = {
            "id": image_id,
            "status": "queued",
            "size": None,
            "disk_format": "raw",
            "container_format": "bare",
        }
        self.breaks = list(breaks)
        self.data = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


@contextlib.contextmanager
def serving(image_id, *breaks):
    with GlanceServer(image_id, breaks) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Request(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        is_schema = self.path == "/v2/schemas/image"
        if self.server.image is None and not is_schema:
            return self._answer(404)
        return self._answer(200, SCHEMA if is_schema else self.server.image)

    def do_PATCH(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200, self.server.image)

    def do_DELETE(self):
        self.server.image = None
        self._answer(204)

    def do_PUT(self):
        limit, status = None, 204
        if self.server.breaks:
            limit, status = self.server.breaks.pop(0)
        data, at_end = self._body(limit)
        if at_end and limit is None:
            self.server.data = data
            self.server.image |= {"status": "active", "size": len(data)}
        self.close_connection = not at_end
        if status is not None:
            self._answer(status)

    def _body(self, limit):
        """Return the body, and whether all of it was read."""
        data = bytearray()
        while limit is None or len(data) < limit:
            length = int(self.rfile.readline(), 16)
            data += self.rfile.read(length)
            self.rfile.readline()
            if not length:
                return bytes(data), True
        return bytes(data), False

    def _answer(self, status, content=None):
        body = b"" if content is None else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        if content is not None:
            self.send_header("Content-Type", "application/json")
        if 300 <= status < 400:
            self.send_header("Location", f"{self.server.url}{self.path}")
        self.end_headers()
        self.wfile.write(body)
