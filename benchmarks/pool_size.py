# SPDX-License-Identifier: Apache-2.0

"""Delete an instance, beside more and more other images in the pool."""

import concurrent.futures
import uuid
from typing import Any

import rbd

from benchmarks import images
from benchmarks.bench import Bench, in_turn
from benchmarks.results import Column, Report

NAME = "pool_size"
TITLE = "Delete of one instance with N other images in the pool"
ABOUT = "The instance has one cloned root disk, to which nothing was written."
COLUMNS = (
    Column("ms", "ms", spread=True, ratio=True),
    Column("connections", "connections", 0),
)
OTHERS_BYTES = 1 << 20


def run(bench: Bench) -> Report:
    report = Report(NAME, TITLE, ABOUT, COLUMNS)
    image = images.in_ceph(bench.cluster, bench.raw_file(64, 8))
    made = 0
    with bench.hosts() as hosts:
        for (host,) in hosts.values():
            host.ask("know", **vars(image))
        for count in bench.size([100, 1000, 10000], [20, 100]):
            bench.progress(f"{NAME}: making {count - made} images")
            make_others(bench, count - made)
            made = count
            for number in range(bench.times(15) + bench.warm_ups):
                for side in in_turn(hosts, number):
                    sample = _delete(bench, hosts[side][0], image)
                    if number >= bench.warm_ups:
                        report.add(str(count), side, sample)
        bench.progress(f"{NAME}: removing the images")
    report.rows.sort(key=lambda row: int(row.case))
    return report


def _delete(bench: Bench, host: Any, image: images.Image) -> dict[str, float]:
    instance = str(uuid.uuid4())
    host.ask("boot", instance=instance, image=image.image_id)
    sample = host.ask("delete", instance=instance)
    bench.meters.wait_for_empty_trash()
    return {"connections": 0, **sample}


def make_others(bench: Bench, count: int) -> None:
    """Make disks of other instances in the cheapest way."""
    with bench.meters.ioctx("vms") as ioctx:

        def make(_number: int) -> None:
            rbd.RBD().create(
                ioctx,
                f"{uuid.uuid4()}_disk",
                OTHERS_BYTES,
                old_format=False,
                features=rbd.RBD_FEATURE_LAYERING,
            )

        with concurrent.futures.ThreadPoolExecutor(16) as threads:
            list(threads.map(make, range(count)))
