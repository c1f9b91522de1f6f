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
    "A raw image in Glance's pool; flavors of 1 and 2 GiB. A resize is its "
    "second part, with the new flavor, and its confirmation. The disk that is "
    "snapshot has 48 MiB of its own."
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
    """What each case took on one host, of an instance made for it."""
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
    """An instance whose disk has data of its own."""
    instance = str(uuid.uuid4())
    host.ask("boot", instance=instance, image=image.image_id)
    write(bench, instance, 0, DISK_MIB)
    return instance


def write(bench: Bench, instance: str, begin_mib: int, end_mib: int) -> None:
    """Have an instance write to its disk."""
    with (
        bench.meters.ioctx("vms") as ioctx,
        rbd.Image(ioctx, f"{instance}_disk") as image,
    ):
        for number in range(begin_mib, end_mib, 8):
            image.write(images.random_run(), number * MIB)


def snapshot(
    bench: Bench, host: Any, instance: str
) -> tuple[dict[str, float], dict[str, float]]:
    """One snapshot, which is removed; what it took, and what came after it.

    That is the time until the snapshot does without the instance's disk.
    """
    name = str(uuid.uuid4())
    found = host.ask("snapshot", instance=instance, snapshot=name)
    if host.side == "floor":
        later = host.ask("detach", snapshot=name)
    else:
        later = bench.meters.wait_for_detached(instance, found["url"])
    bench.meters.remove_snapshot(instance, found["url"])
    return found["sample"], later
