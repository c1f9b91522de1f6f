# SPDX-License-Identifier: Apache-2.0

"""Make a snapshot of a disk with more and more data."""

import uuid
from typing import Any

from benchmarks import images
from benchmarks.bench import Bench, in_turn
from benchmarks.operations import snapshot, write
from benchmarks.results import Column, Report

NAME = "snapshot_size"
TITLE = "One snapshot of a disk with N MiB of data"
ABOUT = (
    '"ms" is the time until Glance has the location, without Glance\'s own '
    'part. "ms afterwards" is the time in which the background copies the '
    "data into the snapshot; the in-tree backend does that before it returns. "
    "All run as client.admin, because the in-tree backend writes to Glance's "
    "pool."
)
COLUMNS = (
    Column("ms", "ms", spread=True, ratio=True),
    Column("afterwards_ms", "ms afterwards", 0),
)


def run(bench: Bench) -> Report:
    report = Report(NAME, TITLE, ABOUT, COLUMNS)
    image = images.in_ceph(bench.cluster, bench.raw_file(64, 8))
    with bench.hosts(user="admin") as hosts:
        disks = {side: _disk(h[0], image) for side, h in hosts.items()}
        filled = 0
        for mib in bench.size([48, 200, 1024, 4096], [8, 64]):
            bench.progress(f"{NAME}: writing {mib} MiB to each disk")
            for instance in disks.values():
                write(bench, instance, filled, mib)
            filled = mib
            rounds = bench.times(5 if mib <= 200 else 3 if mib < 4096 else 2)
            if not report.rows:  # the first connects and warms the caches
                for side in hosts:
                    _round(bench, hosts[side][0], disks[side])
            for number in range(rounds):
                for side in in_turn(hosts, number):
                    bench.progress(f"{NAME}: {mib} MiB, {side} {number}")
                    sample = _round(bench, hosts[side][0], disks[side])
                    report.add(str(mib), side, sample)
    return report


def _disk(host: Any, image: images.Image) -> str:
    instance = str(uuid.uuid4())
    host.ask("know", **vars(image))
    host.ask("boot", instance=instance, image=image.image_id, gib=10)
    return instance


def _round(bench: Bench, host: Any, disk: str) -> dict[str, float]:
    sample, later = snapshot(bench, host, disk)
    in_tree = host.side == "in-tree"
    return {**sample, "afterwards_ms": 0.0 if in_tree else later["ms"]}
