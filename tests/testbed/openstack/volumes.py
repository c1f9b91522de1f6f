# SPDX-License-Identifier: Apache-2.0

"""Volumes as Cinder's RBD driver makes them, known to Cinder's stand-in.

All is done as client.cinder, whose key a nova-compute has only through
libvirt.
"""

import contextlib
import dataclasses
import json
import urllib.request
import uuid
from collections.abc import Iterator
from typing import Any

import rados
import rbd
from openstack.image.v2.image import Image

from tests.testbed.ceph import pools, rbd_view
from tests.testbed.ceph.cluster import CephCluster
from tests.testbed.host.compute_host import ComputeHost
from tests.testbed.process import wait_for

POOL = "volumes"
USER = "cinder"
# Any fixed UUID: libvirt's secret with client.cinder's key, on every host.
SECRET_UUID = "5a0bd1b4-1a4b-4d60-9a1f-6e3f4d3c6c0e"
GIB = 1 << 30
CHANGE_SECONDS = 30


@dataclasses.dataclass(frozen=True)
class Volume:
    """One volume of 1 GiB."""

    id: str

    @property
    def image(self) -> str:
        """Its RBD image in the pool."""
        return f"volume-{self.id}"


class Volumes:
    """Makes volumes, looks at them and removes them.

    :param url: the address of Cinder's stand-in
    """

    def __init__(self, cluster: CephCluster, url: str):
        self._cluster = cluster
        self._url = url
        self._made: list[Volume] = []

    def give_secret(self, host: ComputeHost) -> None:
        """Give its libvirtd the key of client.cinder."""
        host.set_secret(SECRET_UUID, USER, self._cluster.key(USER))

    def blank(self) -> Volume:
        """Make an empty volume."""
        volume = Volume(str(uuid.uuid4()))
        with self._pool() as ioctx:
            rbd.RBD().create(ioctx, volume.image, GIB, old_format=False)
        return self._register(volume)

    def of_image(self, image: Image) -> Volume:
        """Make a bootable volume from a raw image in Glance's rbd store."""
        volume = Volume(str(uuid.uuid4()))
        with self._pool() as ioctx, self._pool("images") as images:
            clone = (images, image.id, "snap", ioctx, volume.image)
            rbd.RBD().clone(*clone)
            with rbd.Image(ioctx, volume.image) as opened:
                opened.resize(GIB)
        metadata = {
            "image_id": image.id,
            "image_name": image.name,
            "disk_format": "raw",
            "container_format": "bare",
            "min_disk": "0",
            "min_ram": "0",
            "size": str(image.size),
        }
        return self._register(
            volume, bootable="true", volume_image_metadata=metadata
        )

    def read(self, volume: Volume, offset: int, length: int) -> bytes:
        """Read bytes from the cluster, whoever has the volume open."""
        with (
            self._pool() as ioctx,
            rbd_view.opened(ioctx, volume.image) as opened,
        ):
            return bytes(opened.read(offset, length))

    def write(self, volume: Volume, offset: int, data: bytes) -> None:
        """Write data for a guest to find."""
        with self._pool() as ioctx, rbd.Image(ioctx, volume.image) as opened:
            opened.write(data, offset)

    def wait(self, volume: Volume, status: str) -> None:
        """Wait until Cinder gives the volume this status."""
        path = f"/v3/volumes/{volume.id}"
        wait_for(
            f"volume {volume.id} is {status}",
            lambda: self._ask("GET", path)["volume"]["status"] == status,
            CHANGE_SECONDS,
            interval_seconds=0.25,
        )

    def hosts(self, volume: Volume) -> list[str]:
        """Names of the hosts to which Cinder has attached the volume."""
        found = self._ask("GET", f"/v3/attachments?volume_id={volume.id}")
        return [str(a["host"]) for a in found["attachments"]]

    def snapshots(self, volume: Volume) -> list[str]:
        """Ids of the snapshots that Cinder was asked for."""
        found = self._ask("GET", f"/v3/snapshots?volume_id={volume.id}")
        return [str(snapshot["id"]) for snapshot in found["snapshots"]]

    def remove_all(self) -> None:
        """Remove the volumes that it has made.

        :raises urllib.error.HTTPError: a volume is still attached
        :raises rbd.ImageNotFound: somebody else has removed a volume
        """
        while self._made:
            volume = self._made.pop()
            self._ask("DELETE", f"/testbed/volumes/{volume.id}")
            with self._pool() as ioctx:
                rbd.RBD().remove(ioctx, volume.image)

    def _register(self, volume: Volume, **more: object) -> Volume:
        self._made.append(volume)
        body = {
            "id": volume.id,
            "size": 1,
            "connection": self._connection(volume),
            **more,
        }
        self._ask("POST", "/testbed/volumes", body)
        return volume

    def _connection(self, volume: Volume) -> dict[str, object]:
        """What Cinder tells Nova (RBDDriver.initialize_connection)."""
        with self._cluster.admin() as connection:
            monitors = pools.command(connection, "mon dump")["mons"]
        # "127.0.0.1:6789/0", as Cinder too takes them from `ceph mon dump`.
        addresses = [m["addr"].partition("/")[0] for m in monitors]
        return {
            "driver_volume_type": "rbd",
            "name": f"{POOL}/{volume.image}",
            "hosts": [a.rpartition(":")[0] for a in addresses],
            "ports": [a.rpartition(":")[2] for a in addresses],
            "cluster_name": "ceph",
            "auth_enabled": True,
            "auth_username": USER,
            "secret_type": "ceph",
            "secret_uuid": SECRET_UUID,
            "volume_id": volume.id,
            "discard": True,
            "qos_specs": None,
            "access_mode": "rw",
            "encrypted": False,
            "cacheable": False,
        }

    @contextlib.contextmanager
    def _pool(self, pool: str = POOL) -> Iterator[rados.Ioctx]:
        with (
            self._cluster.client(USER) as connection,
            connection.open_ioctx(pool) as ioctx,
        ):
            yield ioctx

    def _ask(
        self, method: str, path: str, body: dict[str, object] | None = None
    ) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._url + path, data=data, method=method
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
        return json.loads(text) if text else None
