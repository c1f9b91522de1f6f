# SPDX-License-Identifier: Apache-2.0

"""Tell if an image in Glance can be cloned here, and name its base.

The data of an image in Glance never changes. A base is nevertheless named
after the data's hash, because the id of a purged image may be used again.
"""

import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import Any

import nova.conf
from nova import exception

from nova_rbd_backend import metadata, names
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage.disks import parent
from nova_rbd_backend.virt import edge

CONF = nova.conf.CONF
#: In these formats the image's bytes are the disk's bytes.
CLONEABLE_FORMATS = ("raw", "iso")


@dataclasses.dataclass(frozen=True)
class WantedBase:
    """A base that may not exist yet.

    :ivar facts: the metadata that it gets when it is made
    :ivar image_id: the image to download; None: it only takes an mkfs
    :ivar raw_bytes: its size, if its bytes are a disk's; None: they may not be
    :ivar parent: the snap that it is a clone of, with room for the headers of
        encrypted disks; None: it has data of its own
    """

    name: str
    facts: Mapping[str, str]
    image_id: str | None = None
    raw_bytes: int | None = None
    parent: names.SnapPath | None = None

    @property
    def is_fetched(self) -> bool:
        return self.image_id is not None


def location_here(image_meta: Mapping[str, Any]) -> tuple[str, int] | None:
    """Return URL and bytes of the first location that can be cloned here.

    :returns: None: the image is not raw or ISO, or has no location in this
        cluster that is visible and readable
    """
    if image_meta.get("disk_format") not in CLONEABLE_FORMATS:
        return None
    cluster = edge.store().cluster
    for location in image_meta.get("locations") or ():
        url = str(location["url"])
        found_bytes = edge.run(
            functools.partial(parent.size_bytes, cluster, url)
        )
        if found_bytes is not None:
            return url, found_bytes
    return None


def require_usable(image_meta: Mapping[str, Any]) -> None:
    """Refuse an image of which no disk may be made, in whatever way.

    Nova's API checks whether an image is active when a server is created, but
    not in a rescue.

    :raises nova.exception.ImageNotActive: for example, it is deactivated
    :raises nova.exception.StorageError: a location is not the image's own
    """
    image_id = str(image_meta["id"])
    if image_meta.get("status", "active") != "active":
        raise exception.ImageNotActive(image_id=image_id)
    cluster = edge.store().cluster
    for location in image_meta.get("locations") or ():
        edge.run(
            functools.partial(
                parent.refuse_foreign_location,
                *(cluster, str(location["url"]), image_id),
            )
        )


def verified_with(trusted_certs: Any) -> str | None:
    """Return what Nova verifies the image's signature with; None: nothing.

    It decides as nova.image.glance._get_verifier does (Nova 26 to 34).
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

    A base also differs by whether Nova verified the image, and with which
    certificates.
    """
    image_id = str(image_meta["id"])

    if image_meta.get("os_hash_value"):
        data = f"{image_meta['os_hash_algo']}:{image_meta['os_hash_value']}"
    elif image_meta.get("checksum"):
        data = f"md5:{image_meta['checksum']}"
    else:
        # Glance computes no hash for a location that was given to it.
        data = ""
    verified = verified_with(trusted_certs)
    changes = ("size", "created_at", "updated_at")
    content = [data or [str(image_meta.get(key)) for key in changes], verified]
    return WantedBase(
        names.base_image(image_id, json.dumps(content)),
        metadata.describe_base(
            image_id=image_id,
            content_hash=data,
            disk_format=image_meta.get("disk_format"),
            verified_with=verified,
        ),
        image_id,
        _raw_bytes(image_meta),
    )


def _raw_bytes(image_meta: Mapping[str, Any]) -> int | None:
    is_raw = image_meta.get("disk_format") in CLONEABLE_FORMATS
    return (image_meta.get("size") or None) if is_raw else None


def base_of_encrypted(pool: Pool, parent: names.SnapPath) -> WantedBase:
    """Return the base for encrypted disks that share a parent's data.

    Disks of another striping would need another one.
    """
    source = names.base_source(parent.image) or parent.image
    content = ["luks2", str(parent), str(pool.options.striping)]
    return WantedBase(
        names.base_image(source, json.dumps(content)),
        metadata.describe_base(),
        parent=parent,
    )


def base_of_generated(
    filename: str,
    disk_name: str,
    size_bytes: int | None,
    os_type: str | None,
    file_system: str | None,
) -> WantedBase:
    """Return the base for ephemeral or swap disks of a size and file system.

    Two ephemeral disks of a guest have two bases, because their file systems
    have different labels and UUIDs (driver.py, _create_local).

    :param filename: Nova's; it has the size, but not the file system, which
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
    )
