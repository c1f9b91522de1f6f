# SPDX-License-Identifier: Apache-2.0

"""The bare librbd calls that a piece of work needs, on an open connection."""

import concurrent.futures
import os
import time
from typing import Any

from benchmarks import counters
from benchmarks.nova_side import BUILDS

GIB = 1 << 30


class FloorSide:
    """Has the methods of NovaSide, without Nova, safety or bookkeeping."""

    def __init__(
        self, side: str, folder: str, conf: str, user: str, green: bool
    ) -> None:
        counters.install()
        import rados

        self._conf, self._user = conf, user
        self._client = rados.Rados(conffile=conf, rados_id=user)
        self._client.connect()
        self._pools = {
            name: self._client.open_ioctx(name) for name in ("images", "vms")
        }
        self._images: dict[str, tuple[str, str, str]] = {}

    def know(self, image_id: str, url: str | None, **_image: Any) -> None:
        """Remember what to clone."""
        if url is not None:
            pool, name, snap = url.split("/")[-3:]
            self._images[image_id] = (pool, name, snap)

    def forget(self) -> None:
        """Do nothing, because there is no cache."""

    def import_base(self, image: str, path: str, disk_format: str) -> None:
        """Convert a file straight into the pool once, to be cloned."""
        import rbd

        name = f"base-{image}"
        counters.run(convert_command(self._conf, path, disk_format, name))
        with rbd.Image(self._pools["vms"], name) as base:
            base.create_snap("base")
        self._images[image] = ("vms", name, "base")

    def know_base(self, image: str) -> None:
        self._images[image] = ("vms", f"base-{image}", "base")

    def boot(
        self, instance: str, image: str, gib: int = 1, resize: bool = False
    ) -> dict[str, float]:
        import rbd

        disk = f"{instance}_disk"
        with counters.measured() as sample:
            if not resize:
                pool, name, snap = self._images[image]
                rbd.RBD().clone(
                    self._pools[pool], name, snap, self._pools["vms"], disk
                )
            with rbd.Image(self._pools["vms"], disk) as handle:
                if resize:
                    handle.create_snap("nova-resize")
                handle.resize(gib * GIB)
        return sample

    def boot_many(
        self, instances: list[str], image: str, at: float
    ) -> dict[str, float]:
        with concurrent.futures.ThreadPoolExecutor(BUILDS) as threads:
            time.sleep(max(0.0, at - time.monotonic()))
            list(threads.map(lambda i: self.boot(i, image), instances))
        return {"end": time.monotonic()}

    def delete(self, instance: str) -> dict[str, float]:
        import rbd

        vms, disk = self._pools["vms"], f"{instance}_disk"
        with counters.measured() as sample:
            rbd.RBD().trash_move(vms, disk)
        (entry,) = [
            each["id"]
            for each in rbd.RBD().trash_list(vms)
            if each["name"] == disk
        ]
        rbd.RBD().trash_remove(vms, entry)
        return sample

    def confirm(self, instance: str) -> dict[str, float]:
        import rbd

        with (
            counters.measured() as sample,
            rbd.Image(self._pools["vms"], f"{instance}_disk") as image,
        ):
            image.remove_snap("nova-resize")
        return sample

    def snapshot(self, instance: str, snapshot: str) -> dict[str, Any]:
        """Make a snap, a clone of it, and the clone's protected snap."""
        import rbd

        vms, images = self._pools["vms"], self._pools["images"]
        with counters.measured() as sample:
            with rbd.Image(vms, f"{instance}_disk") as disk:
                disk.create_snap(snapshot)
            rbd.RBD().clone(
                vms, f"{instance}_disk", snapshot, images, snapshot
            )
            with rbd.Image(images, snapshot) as clone:
                clone.create_snap("snap")
                clone.protect_snap("snap")
        return {"sample": sample, "url": f"rbd:///images/{snapshot}/snap"}

    def detach(self, snapshot: str) -> dict[str, float]:
        """Copy the data into a snapshot, after it was taken."""
        import rbd

        with (
            counters.measured() as sample,
            rbd.Image(self._pools["images"], snapshot) as clone,
        ):
            clone.flatten()
        return sample

    def tool(self, command: list[str]) -> dict[str, float]:
        """Run one of Ceph's or QEMU's programs."""
        with counters.measured() as sample:
            counters.run(command)
        return sample

    def left_locally(self) -> dict[str, float]:
        return {"bytes": 0}


def convert_command(
    conf: str, path: str, disk_format: str, name: str
) -> list[str]:
    """The fastest qemu-img command that copies into a new image."""
    os.environ["CEPH_CONF"] = conf
    target = f"rbd:vms/{name}:id=nova:conf={conf}"
    command = ["qemu-img", "convert", "-W", "-m", "16", "-f", disk_format]
    return [*command, "-O", "raw", path, target]
