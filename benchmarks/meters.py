# SPDX-License-Identifier: Apache-2.0

"""Read what the cluster itself has counted; wait for it, and clean it."""

import concurrent.futures
import json
import os
import pathlib
import time
from collections.abc import Iterable

import rados
import rbd

from tests.testbed import process
from tests.testbed.ceph import cluster as ceph
from tests.testbed.ceph import rbd_view

MIB = 1 << 20
POOLS = ("vms", "snapshots", "images")
CLEAN_SECONDS = 300
REST_SECONDS = 60


class Meters:
    """Counters of the OSDs, and the pools, over one connection."""

    def __init__(self, cluster: ceph.CephCluster) -> None:
        self._cluster = cluster
        self._osds = range(cluster.settings.osds)
        # librbd complains on stderr of each image that it can't remove yet.
        self._client = rados.Rados(
            conffile=str(cluster.conf),
            rados_id="admin",
            conf={"err_to_stderr": "false"},
        )
        self._client.connect(timeout=30)

    def close(self) -> None:
        self._client.shutdown()

    def read(self) -> dict[str, float]:
        """MiB written by clients since the start; MiB of data stored.

        From the OSDs' own counters, which are exact at once; a pool's
        statistics lag for seconds. One copy of each object is stored.
        """
        written = stored = 0
        for number in self._osds:
            answer = self._perf(number)
            # RBD's class methods in the OSD count as read and write in one.
            written += answer["osd"]["op_w_in_bytes"]
            written += answer["osd"]["op_rw_in_bytes"]
            bluestore = answer["bluestore"]
            # The name until Ceph 17, and since.
            stored += bluestore.get("bluestore_stored", 0)
            stored += bluestore.get("stored", 0)
        return {"written_mib": written / MIB, "stored_mib": stored / MIB}

    def at_rest(self) -> dict[str, float]:
        """Read once the OSDs have freed what was removed before.

        BlueStore frees the data of removed objects after its answer.
        """
        seen: list[dict[str, float]] = [{}]

        def still() -> bool:
            seen.append(self.read())
            return seen[-1] == seen[-2]

        process.wait_for("the OSDs are at rest", still, REST_SECONDS, 0.3)
        return seen[-1]

    def work_of_osds(self) -> dict[str, float]:
        """CPU time of all OSDs, and MiB written to their databases."""
        written = 0
        for number in self._osds:
            found = self._perf(number)["bluefs"]
            written += found["bytes_written_wal"] + found["bytes_written_sst"]
        return {"osd_ms": self.cpu_ms("osd."), "db_mib": written / MIB}

    def cpu_ms(self, daemons: str) -> float:
        """CPU time so far of the daemons whose names begin like this."""
        ticks = 0
        for name, pid, _ in self._cluster.status():
            if name.startswith(daemons):
                words = pathlib.Path(f"/proc/{pid}/stat").read_text()
                fields = words.rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks * 1000 / os.sysconf("SC_CLK_TCK")

    def _perf(self, osd: int) -> dict[str, dict[str, int]]:
        request = json.dumps({"prefix": "perf dump", "format": "json"})
        code, answer, reason = self._client.osd_command(osd, request, b"")
        if code:
            raise process.TestbedError(f"osd.{osd}: {code} {reason}")
        return json.loads(answer)

    def ioctx(self, pool: str) -> rados.Ioctx:
        return self._client.open_ioctx(pool)

    def wait_for_empty_trash(self) -> None:
        """Wait until what was deleted is purged."""

        def empty() -> bool:
            with self.ioctx("vms") as ioctx:
                return not list(rbd.RBD().trash_list(ioctx))

        process.wait_for("the trash of vms is empty", empty, 120, 0.02)

    def wait_for_detached(self, instance: str, url: str) -> dict[str, float]:
        """Wait until a snapshot is detached; return how long that took."""
        pool, name = url.split("/")[-3:-1]
        begin = time.perf_counter()

        def detached() -> bool:
            with self.ioctx("vms") as ioctx, self._open(ioctx, instance) as d:
                if list(d.list_snaps()):
                    return False
            with self.ioctx(pool) as ioctx:
                return not _has_parent(ioctx, name)

        process.wait_for("the snapshot is detached", detached, 600, 0.02)
        return {"ms": (time.perf_counter() - begin) * 1000}

    def remove_snapshot(self, instance: str, url: str) -> None:
        """Remove the snapshot, and the disk's snaps if any are left."""
        pool, name = url.split("/")[-3:-1]
        with self.ioctx(pool) as ioctx:
            _remove(ioctx, name)
        with (
            self.ioctx("vms") as ioctx,
            rbd.Image(ioctx, f"{instance}_disk") as disk,
        ):
            _remove_snaps(disk)

    @staticmethod
    def _open(ioctx: rados.Ioctx, instance: str) -> rbd.Image:
        return rbd.Image(ioctx, f"{instance}_disk", read_only=True)

    def clean(self, keep: Iterable[str] = ()) -> None:
        """Remove all images except those in ``keep``, whoever made them."""
        kept = frozenset(keep)
        process.wait_for(
            "all pools are empty",
            lambda: not sum(self._clean(pool, kept) for pool in POOLS),
            CLEAN_SECONDS,
        )

    def _clean(self, pool: str, kept: frozenset[str]) -> int:
        """Remove what can be removed now; return how many there were."""
        with self.ioctx(pool) as ioctx:
            librbd = rbd.RBD()
            names = [n for n in librbd.list(ioctx) if n not in kept]
            trash = [each["id"] for each in librbd.trash_list(ioctx)]
            with concurrent.futures.ThreadPoolExecutor(8) as threads:
                list(threads.map(lambda n: _remove(ioctx, n), names))
                list(threads.map(lambda i: _purge(ioctx, i), trash))
        return len(names) + len(trash)


def _remove(ioctx: rados.Ioctx, name: str) -> None:
    """Remove an image with its snaps, unless it still has a clone."""
    try:
        with rbd.Image(ioctx, name) as image:
            _remove_snaps(image)
        rbd.RBD().remove(ioctx, name)
    except (rbd.ImageNotFound, rbd.ImageBusy, rbd.ImageHasSnapshots):
        return


def _purge(ioctx: rados.Ioctx, image_id: str) -> None:
    try:
        with rbd.Image(ioctx, image_id=image_id) as image:
            _remove_snaps(image)
        rbd.RBD().trash_remove(ioctx, image_id, force=True)
    except (rbd.ImageNotFound, rbd.ImageBusy, rbd.ImageHasSnapshots):
        return


def _has_parent(ioctx: rados.Ioctx, name: str) -> bool:
    with rbd_view.opened(ioctx, name) as image:
        try:
            image.parent_info()
        except rbd.ImageNotFound:
            return False
        return True


def _remove_snaps(image: rbd.Image) -> None:
    for snap in image.list_snaps():
        if snap["namespace"] != rbd.RBD_SNAP_NAMESPACE_TYPE_USER:
            continue
        if image.is_protected_snap(snap["name"]):
            if list(image.list_children2()):
                return
            image.unprotect_snap(snap["name"])
        image.remove_snap(snap["name"])
