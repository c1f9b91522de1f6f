# SPDX-License-Identifier: Apache-2.0

"""Stand in for Glance, with existing files and RBD images as its images.

No backend waits for a real Glance, so that only the storage work is measured.
"""

import datetime
import hashlib
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

# What glanceclient reads from a response at a time (2.x to 4.x).
CHUNK_BYTES = 64 << 10
# The same on all hosts.
MADE = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
_MODULES = ("nova.", "nova_rbd_backend.")


class API:
    """Has the methods of nova.image.glance.API that the backends call.

    :ivar located_bytes: what Glance's store says of the size of the next image
        that gets a location
    """

    def __init__(self) -> None:
        self.located_bytes = 0
        self._images: dict[str, dict[str, Any]] = {}
        self._files: dict[str, str] = {}

    def add(
        self,
        image_id: str,
        disk_format: str,
        size: int,
        sha512: str,
        path: str | None = None,
        url: str | None = None,
    ) -> None:
        """Add an active image, in the file at ``path`` or at ``url``."""
        self._images[image_id] = {
            "id": image_id,
            "name": image_id,
            "status": "active",
            "disk_format": disk_format,
            "container_format": "bare",
            "size": size,
            "min_disk": 0,
            "min_ram": 0,
            "checksum": None,
            "owner": "benchmark",
            "created_at": MADE,
            "updated_at": MADE,
            "deleted_at": None,
            "deleted": False,
            "is_public": True,
            "os_hash_algo": "sha512",
            "os_hash_value": sha512,
            "properties": {},
            "locations": [
                {"url": url or f"file://{path}", "metadata": {}},
            ],
        }
        if path is not None:
            self._files[image_id] = path

    def get(
        self,
        context: Any,
        image_id: str,
        include_locations: bool = False,
        show_deleted: bool = True,
    ) -> dict[str, Any]:
        image = dict(self._images[image_id])
        image["properties"] = dict(image["properties"])
        if not include_locations:
            del image["locations"]
        return image

    def url(self, image_id: str) -> str:
        """The URL of an image's first location."""
        return str(self._images[image_id]["locations"][0]["url"])

    def update(
        self,
        context: Any,
        image_id: str,
        image: dict[str, Any],
        data: Any = None,
        purge_props: bool = False,
    ) -> dict[str, Any]:
        """Add a location, which makes the image active at once."""
        url = image["location"]
        self.add(image_id, "raw", self.located_bytes, "", url=url)
        return self.get(context, image_id)

    def download(
        self,
        context: Any,
        image_id: str,
        data: Any = None,
        dest_path: str | None = None,
        trusted_certs: Any = None,
    ) -> Iterator[bytes] | None:
        """Give the bytes as Nova's client does (nova/image/glance.py, 34).

        It checks the hash on the way, and has synced the file to the disk at
        the end.
        """
        chunks = self._chunks(image_id)
        if data is None and dest_path is None:
            return chunks
        if data is not None:
            for chunk in chunks:
                data.write(chunk)
            return None
        with open(str(dest_path), "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        return None

    def _chunks(self, image_id: str) -> Iterator[bytes]:
        found = hashlib.sha512()
        with open(self._files[image_id], "rb", buffering=0) as file:
            while chunk := file.read(CHUNK_BYTES):
                found.update(chunk)
                yield chunk
                if "eventlet" in sys.modules:
                    # A socket would let other greenlets run here.
                    time.sleep(0)
        wanted = self._images[image_id]["os_hash_value"]
        if found.hexdigest() != wanted:
            raise OSError(f"image {image_id} has another hash than in Glance")


def install() -> API:
    """Replace Glance's client in all of Nova, imported already or later."""
    from nova.image import glance

    api = API()
    glance.API = lambda: api
    replace(api)
    return api


def replace(api: API) -> None:
    """Replace the client of the modules that have made theirs already."""
    for name, module in list(sys.modules.items()):
        if name.startswith(_MODULES) and hasattr(module, "IMAGE_API"):
            module.IMAGE_API = api
