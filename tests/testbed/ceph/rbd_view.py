# SPDX-License-Identifier: Apache-2.0

"""Read what a pool contains, through librbd with the admin's rights."""

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator

import rados
import rbd

from nova_rbd_backend import names
from tests.testbed.ceph.cluster import CephCluster
from tests.testbed.process import TestbedError


@dataclasses.dataclass(frozen=True)
class ImageView:
    """One RBD image as it is on the cluster."""

    name: str
    size_bytes: int
    parent: str | None
    metadata: dict[str, str]

    def lines(self) -> list[str]:
        """For people to read."""
        origin = f"clone of {self.parent}" if self.parent else "no parent"
        head = f"{self.name}  {self.size_bytes >> 20} MiB, {origin}"
        return [head] + [f"    {k} = {v}" for k, v in self.metadata.items()]


@contextlib.contextmanager
def opened(
    ioctx: rados.Ioctx, name: str | None = None, image_id: str | None = None
) -> Iterator[rbd.Image]:
    """Open an image for reading, by its name or its id.

    librbd may crash if such an image is closed too soon; see Pool._close in
    nova_rbd_backend/ceph/pool.py.
    """
    with rbd.Image(ioctx, name, read_only=True, image_id=image_id) as image:
        try:
            yield image
        finally:
            time.sleep(0.005)


def images(cluster: CephCluster, pool: str) -> dict[str, ImageView]:
    """All images by name, except whole bases, because these outlive tests."""
    found = _images(cluster, pool)
    return {name: v for name, v in found.items() if not _is_base(name)}


def bases(cluster: CephCluster, pool: str) -> dict[str, ImageView]:
    """The pool's bases by name."""
    found = _images(cluster, pool)
    return {name: v for name, v in found.items() if _is_base(name)}


def _is_base(name: str) -> bool:
    return names.is_base(name) and names.final_name(name) == name


def _images(cluster: CephCluster, pool: str) -> dict[str, ImageView]:
    with cluster.admin() as connection, connection.open_ioctx(pool) as ioctx:
        found: dict[str, ImageView] = {}
        for name in rbd.RBD().list(ioctx):
            try:
                found[name] = _view(ioctx, name)
            except rbd.ImageNotFound:
                continue  # deleted since it was listed
        return found


def snaps(cluster: CephCluster, pool: str, image: str) -> list[str]:
    """Names of an image's snaps, also of those kept only for clones."""
    with (
        cluster.admin() as connection,
        connection.open_ioctx(pool) as ioctx,
        opened(ioctx, image) as found,
    ):
        return [snap["name"] for snap in found.list_snaps()]


def trash(cluster: CephCluster, pool: str) -> list[str]:
    """Names of the images in the pool's trash."""
    with cluster.admin() as connection, connection.open_ioctx(pool) as ioctx:
        return [entry["name"] for entry in rbd.RBD().trash_list(ioctx)]


def left(cluster: CephCluster, pool: str) -> list[str]:
    """Names of all images in the pool and its trash, except whole bases."""
    return [
        *images(cluster, pool),
        *(f"trash: {name}" for name in trash(cluster, pool)),
    ]


def capacity(cluster: CephCluster, pool: str) -> tuple[int, int]:
    """Bytes of all OSDs, and bytes that the pool can hold, used or free."""
    with cluster.admin() as connection:
        command = json.dumps({"prefix": "df", "format": "json"})
        code, answer, text = connection.mon_command(command, b"")
    if code:
        raise TestbedError(f"ceph df: {text}")
    df = json.loads(answer)
    stats = next(p["stats"] for p in df["pools"] if p["name"] == pool)
    return df["stats"]["total_bytes"], stats["max_avail"] + stats["stored"]


def _view(ioctx: rados.Ioctx, name: str) -> ImageView:
    with opened(ioctx, name) as image:
        try:
            spec = image.get_parent_image_spec()
            parent = "{pool_name}/{image_name}@{snap_name}".format(**spec)
        except rbd.ImageNotFound:
            parent = None
        return ImageView(
            name, image.size(), parent, dict(image.metadata_list())
        )
