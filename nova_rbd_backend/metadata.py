# SPDX-License-Identifier: Apache-2.0

"""The metadata of images: whose disk it is, and what it was made from.

``rbd image-meta list POOL/DISK`` shows it to an operator without Nova.
"""

import importlib.metadata
from collections.abc import Mapping

from nova_rbd_backend import names

PREFIX = "nova."
#: Of a disk or a snapshot: the UUID of the instance.
INSTANCE = PREFIX + "instance"
#: Of a disk: the storage class that it was made in.
CLASS = PREFIX + "class"
#: Of a disk: the id of the image in Glance that it was made from.
BASE_IMAGE = PREFIX + "base_image"
#: Of an encrypted disk or its snapshot: the format, and how many bytes of the
#: image come before the data, as ``luks2:16777216``.
ENCRYPTION = PREFIX + "encryption"
#: Of a disk: the UUID of the migration to another cell that made it.
MOVE = PREFIX + "move"
#: Of a base: when it last had a clone or was used, in seconds since 1970.
LAST_USED = PREFIX + "last_used"
#: Of a base of encrypted disks: how many bytes it has behind its data.
ROOM = PREFIX + "room"


def describe(
    disk: names.DiskName | None,
    project_id: str | None = None,
    image_id: str | None = None,
    storage_class: str | None = None,
    move: str | None = None,
) -> dict[str, str]:
    """Return the metadata of a disk or snapshot, without unknown values."""
    return _known(
        {
            "instance": disk.instance_uuid if disk else None,
            "disk": disk.disk if disk else None,
            "project": project_id,
            "base_image": image_id,
            "class": storage_class,
            "move": move,
        }
    )


def describe_encryption(offset_bytes: int) -> dict[str, str]:
    """Return the metadata of an image that begins with a LUKS2 header."""
    return {ENCRYPTION: f"luks2:{offset_bytes}"}


def data_offset(values: Mapping[str, str]) -> int:
    """Return where the data of an image begins, from its metadata.

    :returns: bytes; 0: it is not encrypted
    """
    return int(values.get(ENCRYPTION, "0").rpartition(":")[2])


def describe_base(
    image_id: str | None = None,
    content_hash: str | None = None,
    disk_format: str | None = None,
    verified_with: str | None = None,
) -> dict[str, str]:
    """Return the metadata of a base, without unknown values.

    :param content_hash: from Glance, of the image as it was uploaded
    :param verified_with: how its signature was verified
    """
    return _known(
        {
            "image": image_id,
            "image_hash": content_hash,
            "image_format": disk_format,
            "verified_with": verified_with,
        }
    )


def _known(facts: dict[str, str | None]) -> dict[str, str]:
    version = importlib.metadata.version("nova-rbd-backend")
    facts = {**facts, "backend": f"nova_rbd_backend {version}"}
    return {PREFIX + key: value for key, value in facts.items() if value}
