# SPDX-License-Identifier: Apache-2.0

"""What Glance says of an image: can it be cloned here, and if not, what is it.

An image in Glance never changes its data. All the same a base is named after
the data's hash too: an id may come again, of an image that was purged.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import nova.conf
from nova import exception

from nova_rbd_backend import metadata, names
from nova_rbd_backend.virt import rbd_utils

CONF = nova.conf.CONF
CLONEABLE_FORMATS = ("raw", "iso")  # whose bytes are the disk's bytes


@dataclasses.dataclass(frozen=True)
class Location:
    """:ivar facts: the location as Glance gives it"""

    facts: Mapping[str, Any]
    size_bytes: int


@dataclasses.dataclass(frozen=True)
class WantedBase:
    """A base.

    :ivar facts: metadata that it gets when it is made
    :ivar is_fetched: it takes a download, and not only an mkfs
    """

    name: str
    facts: Mapping[str, str]
    is_fetched: bool


def location_here(
    rbd: rbd_utils.RBDDriver, image_meta: Mapping[str, Any]
) -> Location | None:
    """The first of the image's locations that can be cloned in this cluster.

    None: it is not raw or ISO, or is not here, or not visible or readable.
    """
    if image_meta.get("disk_format") not in CLONEABLE_FORMATS:
        return None
    for location in image_meta.get("locations") or ():
        size_bytes = rbd.parent_size(location["url"])
        if size_bytes is not None:
            return Location(location, size_bytes)
    return None


def require_active(image_meta: Mapping[str, Any]) -> None:
    """Refuse an image whose data Glance would not hand out.

    Nova's API looks at it when a server is created, but not in a rescue.

    :raises nova.exception.ImageNotActive: it is deactivated, say
    """
    if image_meta.get("status", "active") != "active":
        raise exception.ImageNotActive(image_id=image_meta["id"])


def verified_with(trusted_certs: Any) -> str | None:
    """What Nova verifies the image's signature with; None: nothing.

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
    """The base for an image that has to be fetched.

    One that was not verified, or with other certificates, is another base.
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
    """The base for the ephemeral or swap disks of one size and file system.

    Two ephemeral disks of a guest are of two bases: their file systems have
    labels, and identities, of their own (driver.py, _create_local).

    :param filename: Nova's, with the size; it does not tell the file system,
        which goes by the guest's os_type (nova.privsep.fs.configurable_mkfs)
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
