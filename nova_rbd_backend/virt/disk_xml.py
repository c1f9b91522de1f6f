# SPDX-License-Identifier: Apache-2.0

"""How libvirt and libguestfs are told of a disk: the <disk> element first.

Nova's base class fills all that is not the backend's own (bus, device,
cache, discard, QoS, SCSI unit, boot order); this adds where the disk lies
and how QEMU proves who it is.  The key itself is never in the XML: libvirt
takes it from the secret that the uuid names.
"""

import base64
import dataclasses
from collections.abc import Sequence
from typing import Any

from nova.virt.image import model


@dataclasses.dataclass(frozen=True)
class Source:
    """Where QEMU finds the image, and as whom it connects."""

    pool: str
    image: str
    #: (host, port) of each monitor, IPv6 hosts without brackets.
    monitors: Sequence[tuple[str, str]]
    user: str | None = None
    secret_uuid: str | None = None

    @property
    def name(self) -> str:
        """libvirt's source name, ``pool/image``."""
        return f"{self.pool}/{self.image}"


def fill(disk: Any, source: Source) -> Any:
    """Turn Nova's LibvirtConfigGuestDisk into a network disk; returns it.

    Format is always raw: what the guest writes at the head of its disk must
    never be probed.
    """
    disk.source_type = "network"
    disk.source_path = None
    disk.source_protocol = "rbd"
    disk.source_name = source.name
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

    :param connection: a virConnect; libguestfs is handed the key itself
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
