# SPDX-License-Identifier: Apache-2.0

"""What Glance says of an image: can it be cloned here, and what base has it?

An image in Glance never changes its data. A base is named after the data's
hash all the same: the id of a purged image may be used again.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import nova.conf
from nova import exception

from nova_rbd_backend import metadata, names
from nova_rbd_backend.storage.disks import parent
from nova_rbd_backend.virt import edge

CONF = nova.conf.CONF
CLONEABLE_FORMATS = ("raw", "iso")  # whose bytes are the disk's bytes


@dataclasses.dataclass(frozen=True)
class Location:
    """A location of an image that can be cloned."""

    url: str
    size_bytes: int


@dataclasses.dataclass(frozen=True)
class WantedBase:
    """A base that need not exist.

    :ivar facts: its metadata when it is made
    :ivar is_fetched: making it takes a download, and not only an mkfs
    """

    name: str
    facts: Mapping[str, str]
    is_fetched: bool


def location_here(image_meta: Mapping[str, Any]) -> Location | None:
    """Return the first location that can be cloned in this cluster.

    :returns: None: the image is not raw or ISO, has no location here, or none
        that is visible and readable
    """
    if image_meta.get("disk_format") not in CLONEABLE_FORMATS:
        return None
    for location in image_meta.get("locations") or ():
        url = str(location["url"])
        size_bytes = _size_bytes(url)
        if size_bytes is not None:
            return Location(url, size_bytes)
    return None


def _size_bytes(url: str) -> int | None:
    cluster = edge.store().cluster
    return edge.run(lambda: parent.size_bytes(cluster, url))


def require_active(image_meta: Mapping[str, Any]) -> None:
    """Refuse an image whose data Glance would not hand out.

    Nova's API looks at it when a server is created, but not in a rescue.

    :raises nova.exception.ImageNotActive: it is deactivated, say
    """
    if image_meta.get("status", "active") != "active":
        raise exception.ImageNotActive(image_id=image_meta["id"])


def verified_with(trusted_certs: Any) -> str | None:
    """Return what Nova verifies the image's signature with; None: nothing.

    As nova.image.glance._get_verifier does (Nova 26 to 34).
    """
    ids = trusted_certs.ids if trusted_certs else []
    if not ids and CONF.glance.enable_certificate_validation:
        ids = CONF.glance.default_trusted_certificate_ids
    if ids:
        return "certificates " + ",".join(sorted(ids))
    return "signature" if CONF.glance.verify_glance_signatures else None


def base_of_image(
    image_meta: Mapping[str, Any], trusted_certs: Any
) -> WantedBase:
    """Return the base for an image that has to be fetched.

    An image that was not verified, or was verified with other certificates,
    has another base.
    """
    if image_meta.get("os_hash_value"):
        data = f"{image_meta['os_hash_algo']}:{image_meta['os_hash_value']}"
    elif image_meta.get("checksum"):
        data = f"md5:{image_meta['checksum']}"
    else:
        # Glance knows of no hash (a location that was given to it).
        data = ""
    verified = verified_with(trusted_certs)
    content = [data or _changes(image_meta), verified]
    return WantedBase(
        names.base_image(str(image_meta["id"]), json.dumps(content)),
        metadata.describe_base(
            image_id=str(image_meta["id"]),
            content_hash=data,
            disk_format=image_meta.get("disk_format"),
            verified_with=verified,
        ),
        is_fetched=True,
    )


def _changes(image_meta: Mapping[str, Any]) -> list[str]:
    keys = ("size", "created_at", "updated_at")
    return [str(image_meta.get(key)) for key in keys]


def base_of_generated(
    filename: str,
    disk_name: str,
    size_bytes: int | None,
    os_type: str | None,
    file_system: str | None,
) -> WantedBase:
    """Return the base for ephemeral or swap disks of a size and file system.

    Two ephemeral disks of a guest have two bases: their file systems have
    labels, and identities, of their own (driver.py, _create_local).

    :param filename: Nova's, with the size; not with the file system, which
        depends on the guest's os_type (nova.privsep.fs.configurable_mkfs)
    """
    content: list[object] = [size_bytes]
    if disk_name != "disk.swap":
        number = disk_name.removeprefix("disk.eph")
        content += [number if number.isdigit() else "0"]
        content += [os_type, file_system, CONF.default_ephemeral_format]
    return WantedBase(
        names.base_image(filename, json.dumps(content)),
        metadata.describe_base(),
        is_fetched=False,
    )
