# SPDX-License-Identifier: Apache-2.0

"""The images that instances are made of: in files, and in Glance's pool."""

import dataclasses
import hashlib
import os
import pathlib
import subprocess
import uuid

import rbd

from tests.testbed.ceph import cluster as ceph

MIB = 1 << 20
# As Glance's rbd store makes them (rbd_store_chunk_size 8).
GLANCE_ORDER = 23
RUN_BYTES = 8 * MIB


@dataclasses.dataclass(frozen=True)
class Image:
    """One image, as Glance would describe it.

    :ivar path: its file, if it is in the file store
    :ivar url: its location, if it is in Glance's pool
    """

    image_id: str
    disk_format: str
    size: int
    sha512: str
    path: str | None = None
    url: str | None = None

    def fresh(self) -> "Image":
        """The same bytes under an id that no cache knows."""
        return dataclasses.replace(self, image_id=str(uuid.uuid4()))


def random_run() -> bytes:
    """RUN_BYTES that cannot be compressed."""
    return os.urandom(RUN_BYTES)


def write_raw(path: pathlib.Path, virtual_mib: int, data_mib: int) -> None:
    """Write a sparse file with runs of incompressible data all over it."""
    runs = data_mib * MIB // RUN_BYTES
    stride = virtual_mib * MIB // runs // RUN_BYTES * RUN_BYTES
    with path.open("wb") as file:
        file.truncate(virtual_mib * MIB)
        for number in range(runs):
            file.seek(number * stride)
            file.write(random_run())


def in_file(path: pathlib.Path, disk_format: str) -> Image:
    """Describe a file as an image in Glance's file store."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha512").hexdigest()
    return Image(
        str(uuid.uuid4()),
        disk_format,
        path.stat().st_size,
        digest,
        path=str(path),
    )


def qcow2_of(raw: pathlib.Path) -> pathlib.Path:
    """Convert a raw file to a qcow2 file beside it."""
    return converted(raw, "qcow2")


def converted(
    raw: pathlib.Path, disk_format: str, *options: str
) -> pathlib.Path:
    """Convert a raw file to a file in another format beside it."""
    path = raw.with_suffix(f".{disk_format}")
    command = ["qemu-img", "convert", "-O", disk_format, *options]
    subprocess.run([*command, str(raw), str(path)], check=True, timeout=900)
    return path


def in_ceph(cluster: ceph.CephCluster, raw: pathlib.Path) -> Image:
    """Make an image in Glance's pool with the bytes of a raw file."""
    name = str(uuid.uuid4())
    size = raw.stat().st_size
    with (
        cluster.admin() as admin,
        admin.open_ioctx("images") as ioctx,
        raw.open("rb") as file,
    ):
        rbd.RBD().create(
            ioctx, name, size, order=GLANCE_ORDER, old_format=False
        )
        with rbd.Image(ioctx, name) as image:
            for offset in range(0, size, RUN_BYTES):
                data = file.read(RUN_BYTES)
                if data.strip(b"\0"):
                    image.write(data, offset)
            image.create_snap("snap")
            image.protect_snap("snap")
    url = f"rbd://{cluster.fsid}/images/{name}/snap"
    return Image(name, "raw", size, "", url=url)
