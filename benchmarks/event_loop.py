# SPDX-License-Identifier: Apache-2.0

"""How long nova-compute's event loop stands still while Ceph is slow."""

import time
import uuid
from typing import Any

from benchmarks import images
from benchmarks.bench import Bench, in_turn
from benchmarks.results import Column, Report

NAME = "event_loop"
TITLE = "Longest stall of nova-compute's event loop"
PAUSE_SECONDS = 2.0
ABOUT = (
    "Under eventlet, as Nova 26 to 33 run and 34 can. All OSDs stand still "
    f"for {PAUSE_SECONDS:g} s from the moment that the work begins; meanwhile "
    "another greenlet wants to run every 5 ms. The stall is the longest time "
    "that it had to wait beyond that. The floor is the same loop with nothing "
    "to do."
)
COLUMNS = (
    Column("stall_ms", "ms of stall", 1, spread=True),
    Column("ms", "ms in all", 0),
)


def run(bench: Bench) -> Report:
    report = Report(NAME, TITLE, ABOUT, COLUMNS)
    raw = bench.raw_file(*bench.size((1024, 200), (64, 16)))
    cloned = images.in_ceph(bench.cluster, raw)
    fetched = {
        FIRST: images.in_file(images.qcow2_of(raw), "qcow2"),
        FIRST_RAW: images.in_file(raw, "raw"),
    }
    sides = ("plugin", "in-tree")
    with bench.hosts(sides=sides, green=True) as hosts:
        for (host,) in hosts.values():
            host.ask("know", **vars(cloned))
        for number in range(bench.times(5) + bench.warm_ups):
            for side in in_turn(hosts, number):
                bench.progress(f"{NAME}: {side}, round {number}")
                found = _round(bench, hosts[side][0], cloned, fetched)
                for case, sample in found.items():
                    if number >= bench.warm_ups:
                        name = "floor" if case == IDLE else side
                        report.add(case, name, sample)
    report.rows.sort(key=lambda row: CASES.index(row.case))
    return report


BOOT, DELETE = "boot, OSDs paused", "delete, OSDs paused"
FIRST, IDLE = "first boot of a qcow2 image", "nothing"
FIRST_RAW = "first boot of a raw image"
CASES = [BOOT, DELETE, FIRST, FIRST_RAW, IDLE]


def _round(
    bench: Bench,
    host: Any,
    cloned: images.Image,
    fetched: dict[str, images.Image],
) -> dict[str, dict[str, float]]:
    instance = str(uuid.uuid4())
    boot = {"work": "boot", "instance": instance, "image": cloned.image_id}
    found = {
        BOOT: _slow(bench, host, **boot),
        DELETE: _slow(bench, host, work="delete", instance=instance),
        **{case: _first(host, image) for case, image in fetched.items()},
        IDLE: host.ask("watched", work="idle", seconds=1),
    }
    host.ask("forget")
    bench.meters.wait_for_empty_trash()
    return found


def _first(host: Any, image: images.Image) -> dict[str, float]:
    """Boot from an image that no cache knows."""
    instance, fresh = str(uuid.uuid4()), image.fresh()
    host.ask("know", **vars(fresh))
    work = {"work": "boot", "instance": instance, "image": fresh.image_id}
    found: dict[str, float] = host.ask("watched", **work)
    host.ask("delete", instance=instance)
    return found


def _slow(bench: Bench, host: Any, **work: Any) -> dict[str, float]:
    bench.cluster.pause_osds()
    try:
        host.tell("watched", **work)
        time.sleep(bench.size(PAUSE_SECONDS, PAUSE_SECONDS / 2))
    finally:
        bench.cluster.resume_osds()
    return host.answer()
