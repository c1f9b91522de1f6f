# SPDX-License-Identifier: Apache-2.0

"""Describe a disk to libvirt (the <disk> element) and to libguestfs.

Nova's base class fills in what does not depend on the backend (bus, device,
cache, discard, QoS, SCSI unit, boot order). This module adds where the disk is
and how QEMU authenticates. The key itself is never in the XML: libvirt takes
it from the secret with the given UUID.
"""

import base64
import dataclasses
from collections.abc import Sequence
from typing import Any

from nova.virt.image import model

from nova_rbd_backend.domains import disk_xml


@dataclasses.dataclass(frozen=True)
class Source:
    """Where QEMU finds the image, and as which user it connects."""

    pool: str
    image: str
    #: (host, port) of each monitor; IPv6 hosts have no brackets
    monitors: Sequence[tuple[str, str]]
    user: str | None = None
    secret_uuid: str | None = None


class Encryption:
    """How QEMU decrypts the disk.

    Nova's own class (LibvirtConfigGuestDiskEncryption) knows neither librbd's
    engine nor LUKS2.
    """

    def __init__(self, secret_uuid: str) -> None:
        self._secret_uuid = secret_uuid

    def format_dom(self) -> Any:
        return disk_xml.encryption(self._secret_uuid)


def fill(disk: Any, source: Source) -> Any:
    """Turn Nova's LibvirtConfigGuestDisk into a network disk; return it.

    The format is always raw, because QEMU must never probe the head of a disk,
    where the guest can write what it likes.
    """
    disk.source_type = "network"
    disk.source_path = None
    disk.source_protocol = "rbd"
    disk.source_name = f"{source.pool}/{source.image}"
    disk.source_hosts = [host for host, _port in source.monitors]
    disk.source_ports = [port for _host, port in source.monitors]
    disk.driver_format = "raw"
    if source.user or source.secret_uuid:
        disk.auth_secret_type = "ceph"  # noqa: S105 - a type, not a secret
        disk.auth_secret_uuid = source.secret_uuid
        disk.auth_username = source.user
    return disk


def guestfs_model(source: Source, connection: Any) -> Any:
    """Describe the disk to libguestfs, which injects files into it.

    :param connection: a virConnect, for the key, which libguestfs needs itself
    """
    key = None
    if source.secret_uuid:
        secret = connection.secretLookupByUUIDString(source.secret_uuid)
        key = base64.b64encode(secret.value())
    servers = [
        f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        for host, port in source.monitors
    ]
    return model.RBDImage(source.image, source.pool, source.user, key, servers)
