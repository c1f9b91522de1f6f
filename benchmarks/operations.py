# SPDX-License-Identifier: Apache-2.0

"""Storage work of one boot, resize, snapshot and delete of a cloned disk."""

import uuid
from typing import Any

import rbd

from benchmarks import images
from benchmarks.bench import Bench, in_turn
from benchmarks.results import Column, Report

MIB = 1 << 20

NAME = "operations"
TITLE = "One boot, resize, snapshot, delete"
ABOUT = (
    "The image is raw and in Glance's pool; the flavors have 1 and 2 GiB. A "
    "resize is measured from its second part, with the new flavor, and with "
    "its confirmation. The disk of the snapshots has 48 MiB of its own data."
)
COLUMNS = (
    Column("ms", "ms", spread=True, ratio=True),
    Column("connections", "connections", 0),
    Column("programs", "forks", 0),
    Column("opens", "opens", 0),
)
DISK_MIB = 48


def run(bench: Bench) -> Report:
    report = Report(NAME, TITLE, ABOUT, COLUMNS)
    image = images.in_ceph(bench.cluster, bench.raw_file(64, 8))
    with bench.hosts(user="admin") as hosts:
        for (host,) in hosts.values():
            host.ask("know", **vars(image))
        disks = {
            side: filled_disk(bench, h[0], image) for side, h in hosts.items()
        }
        for number in range(bench.times(20) + 1):
            bench.progress(f"{NAME}: round {number}")
            for side in in_turn(hosts, number):
                found = one_round(bench, hosts[side][0], image, disks[side])
                if number:  # the first connects and warms the caches
                    for case, sample in found.items():
                        report.add(case, side, sample)
    report.rows.sort(key=lambda row: CASES.index(row.case))
    return report


CASES = ["boot", "resize", "snapshot", "delete"]


def one_round(
    bench: Bench, host: Any, image: images.Image, disk: str
) -> dict[str, dict[str, float]]:
    """Measure each case on one host, with an instance made for this round."""
    instance = str(uuid.uuid4())
    found = {"boot": host.ask("boot", instance=instance, image=image.image_id)}
    resized = host.ask(
        "boot", instance=instance, image=image.image_id, gib=2, resize=True
    )
    confirmed = host.ask("confirm", instance=instance)
    found["resize"] = {
        key: resized.get(key, 0) + confirmed.get(key, 0)
        for key in ("ms", "connections", "programs", "opens")
    }
    found["snapshot"], _later = snapshot(bench, host, disk)
    found["delete"] = host.ask("delete", instance=instance)
    bench.meters.wait_for_empty_trash()
    return {
        case: {"connections": 0, "programs": 0, "opens": 0, **sample}
        for case, sample in found.items()
    }


def filled_disk(bench: Bench, host: Any, image: images.Image) -> str:
    """Make an instance whose disk has data of its own."""
    instance = str(uuid.uuid4())
    host.ask("boot", instance=instance, image=image.image_id)
    write(bench, instance, 0, DISK_MIB)
    return instance


def write(bench: Bench, instance: str, begin_mib: int, end_mib: int) -> None:
    """Write to an instance's disk, as its guest would."""
    with (
        bench.meters.ioctx("vms") as ioctx,
        rbd.Image(ioctx, f"{instance}_disk") as image,
    ):
        for number in range(begin_mib, end_mib, 8):
            image.write(images.random_run(), number * MIB)


def snapshot(
    bench: Bench, host: Any, instance: str
) -> tuple[dict[str, float], dict[str, float]]:
    """Make a snapshot and remove it; return the samples of two parts.

    The second part is the time until the snapshot is detached.
    """
    name = str(uuid.uuid4())
    found = host.ask("snapshot", instance=instance, snapshot=name)
    if host.side == "floor":
        later = host.ask("detach", snapshot=name)
    else:
        later = bench.meters.wait_for_detached(instance, found["url"])
    bench.meters.remove_snapshot(instance, found["url"])
    return found["sample"], later
