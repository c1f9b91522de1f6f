# SPDX-License-Identifier: Apache-2.0

"""A boot beside the periodic work of a thousand hosts, and beside none."""

import time
import uuid

from benchmarks import images, many_hosts
from benchmarks.bench import Bench
from benchmarks.crowd import Crowd, crowd
from benchmarks.hosts import Host
from benchmarks.results import Column, Report
from tests.support.clusters import end_periods

NAME = "thousand_hosts"
TITLE = "Storage work of one boot beside that of N other hosts"
ABOUT = (
    "The pool has 100 000 disks, of which 10 000 are deleted and kept, and "
    "100 deleted bases with clones. Each of the other hosts does its periodic "
    "work once within a minute, 40 times as often as by default, and together "
    "they boot and delete a server each second. With 0 of them, nothing else "
    "runs; where they are idle, they are only connected. The last three "
    "columns are those of all hosts, by second."
)
COLUMNS = (
    Column("ms", "ms", spread=True),
    Column("requests", "requests to OSDs", 0),
    Column("osd_ms", "CPU of the OSDs, ms", 0),
    Column("mon_ms", "CPU of the monitor, ms", 0),
)
SECONDS = 60
PAUSE_SECONDS = 0.5
ALONE, IDLE = "0", "{}, idle"


def run(bench: Bench) -> Report:
    report = Report(NAME, TITLE, ABOUT, COLUMNS)
    disks, count = bench.size((100_000, 1000), (1000, 10))
    image = images.in_ceph(bench.cluster, bench.raw_file(64, 8))
    with (
        bench.hosts(("plugin",)) as hosts,
        many_hosts.filled_pool(bench) as fill,
    ):
        fill(disks)
        (host,) = hosts["plugin"]
        host.ask("know", **vars(image))
        _boot(host, image)  # connects
        for case in (ALONE, IDLE, str(count)):
            report.row(case.format(count), "plugin")
        _watch(bench, report, host, image, ALONE)
        with crowd(bench) as others:
            bench.progress(f"{NAME}: {count} hosts connect")
            others.gather(count)
            for _ in range(bench.times(3)):
                _watch(bench, report, host, image, IDLE.format(count))
                _begin(bench, others, image)
                _watch(bench, report, host, image, str(count))
                others.answers()
        _watch(bench, report, host, image, ALONE)
    return report


def _begin(bench: Bench, others: Crowd, image: images.Image) -> None:
    with bench.cluster.admin() as admin:
        for pool in many_hosts.POOLS:
            end_periods(admin, pool)
    seconds = _seconds(bench)
    others.tell("live", seconds, image=vars(image), seconds=seconds)


def _seconds(bench: Bench) -> int:
    return bench.size(SECONDS, 4)


def _watch(
    bench: Bench, report: Report, host: Host, image: images.Image, case: str
) -> None:
    """Boot again and again for some time."""
    bench.progress(f"{NAME}: {case} other hosts")
    before, began = _work(bench), time.monotonic()
    found = []
    while time.monotonic() - began < _seconds(bench):
        found.append(_boot(host, image))
        time.sleep(PAUSE_SECONDS)
    after, seconds = _work(bench), time.monotonic() - began
    work = {key: (after[key] - before[key]) / seconds for key in after}
    for each in found:
        report.add(case, "plugin", {"ms": each["ms"], **work})


def _work(bench: Bench) -> dict[str, float]:
    found = bench.meters.work_of_osds()
    mon_ms = bench.meters.cpu_ms("mon.")
    return {**found, "mon_ms": mon_ms}


def _boot(host: Host, image: images.Image) -> dict[str, float]:
    instance = str(uuid.uuid4())
    found = host.ask("boot", instance=instance, image=image.image_id)
    host.ask("delete", instance=instance)
    return found
