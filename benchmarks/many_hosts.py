# SPDX-License-Identifier: Apache-2.0

"""What hosts ask of Ceph in each period, beside more and more disks.

In each period one host looks at what all have left, and all others ask whether
they may. The other disks are only recorded in the pool, which is all that this
work could read of them.
"""

import contextlib
import uuid
from collections.abc import Callable, Iterator

from benchmarks.bench import Bench
from benchmarks.hosts import Host
from benchmarks.results import Column, Report
from nova_rbd_backend import names
from nova_rbd_backend.ceph import cluster, layouts
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.settings import ClusterSettings
from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.images import discard
from tests.support.clusters import empty_pool, end_periods
from tests.support.many import write_clones, write_entries, write_trashed

NAME = "many_hosts"
TITLE = "Periodic work of one host with N disks in the pool"
ABOUT = (
    "One deleted image in 10 disks is kept, and one base in 1000 disks is "
    "deleted, but has clones."
)
COLUMNS = (
    Column("requests", "requests", 0),
    Column("cpu_ms", "CPU of the host, ms", 0),
    Column("osd_ms", "CPU of the OSDs, ms", 0),
    Column("rss_mib", "memory of the host, MiB", 0),
    Column("threads", "threads", 0),
)
KEPT_OF, HELD_OF = 10, 1000
KEPT_SECONDS = 24 * 3600
POOLS = ("vms", "snapshots")
ONE, OTHERS = "one host", "each other host"


def run(bench: Bench) -> Report:
    report = Report(NAME, TITLE, ABOUT, COLUMNS)
    with (
        bench.cluster.admin() as admin,
        bench.hosts(("plugin",), 2) as hosts,
        filled_pool(bench) as fill,
    ):
        for host in hosts["plugin"]:
            host.ask("periodic")  # connects, and looks at all once
        for count in bench.size([1000, 10000, 100000], [100, 1000]):
            fill(count)
            for _ in range(bench.times(5)):
                for pool in POOLS:
                    end_periods(admin, pool)
                for side, host in zip(
                    (ONE, OTHERS), hosts["plugin"], strict=True
                ):
                    report.add(str(count), side, _period(bench, host))
    return report


@contextlib.contextmanager
def filled_pool(bench: Bench) -> Iterator[Callable[[int], None]]:
    """Lend what fills the pool up to a number of disks; empty it at the end.

    One deleted image in KEPT_OF disks is kept, and one base in HELD_OF disks
    is deleted, but has clones.
    """
    settings = ClusterSettings(str(bench.cluster.conf), "admin", 30, 60)
    vms = Pool(cluster.connect(settings), "vms")
    made = 0

    def fill(count: int) -> None:
        nonlocal made
        bench.progress(f"making {count - made} disks")
        _make(vms, made, count)
        made = count

    with bench.cluster.admin() as admin:
        try:
            yield fill
        finally:
            # librbd could not remove images that do not exist, nor parents of
            # clones that went with them.
            for pool in ("vms", "images"):
                empty_pool(admin, pool)


def _period(bench: Bench, host: Host) -> dict[str, float]:
    before = bench.meters.work_of_osds()
    sample = host.ask("periodic")
    after = bench.meters.work_of_osds()
    return {**sample, "osd_ms": after["osd_ms"] - before["osd_ms"]}


def _make(vms: Pool, first: int, end: int) -> None:
    """Record disks, some of them kept in the trash, and trashed bases."""
    disks = {}
    for number in range(first, end):
        image = str(names.DiskName(str(uuid.uuid4()), "disk"))
        disks |= layouts.directory_entries(image, f"d15c{number:08x}")
    write_entries(vms, layouts.DIRECTORY, disks)
    for _ in range(first // HELD_OF, end // HELD_OF):
        base = f"{names.BASE_PREFIX}{uuid.uuid4()}"
        image_id = _image(vms, base)
        write_clones(vms, image_id, ["c10e"])
        discard.discard(vms, base)
    disk = str(names.DiskName(str(uuid.uuid4()), "disk"))
    like = _image(vms, disk)
    discard.discard(vms, disk, KEPT_SECONDS)
    kept = [f"dead{n:08x}" for n in range(first // KEPT_OF, end // KEPT_OF)]
    write_trashed(vms, like, kept)
    entries = [
        journal.Entry(
            "delete", disk, image_id=image_id, host="another host"
        ).encoded()
        for image_id in kept
    ]
    stored = {entry.key: entry.stored.encode() for entry in entries}
    write_entries(vms, journal.OBJECT, stored)


def _image(vms: Pool, name: str) -> str:
    """Make an image that has a snap; return its id."""
    vms.create(name, 1 << 20)
    with vms.open(name, read_only=False) as image:
        image.create_snap("base")
        return image.image_id
