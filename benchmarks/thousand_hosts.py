# SPDX-License-Identifier: Apache-2.0

"""A boot beside the periodic work of a thousand hosts, and beside none."""

import dataclasses
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
    "runs; where they are idle, they are only connected; where they have just "
    "started, each also looks for what dead processes of it have left. The "
    "last three columns are for all hosts, by second."
)
COLUMNS = (
    Column("ms", "ms", spread=True),
    Column("requests", "requests to OSDs", 0),
    Column("osd_ms", "CPU of the OSDs, ms", 0),
    Column("mon_ms", "CPU of the monitor, ms", 0),
)
SECONDS = 60
PAUSE_SECONDS = 0.5
ALONE = "0"


def run(bench: Bench) -> Report:
    report = Report(NAME, TITLE, ABOUT, COLUMNS)
    disks, count = bench.size((100_000, 1000), (1000, 10))
    image = images.in_ceph(bench.cluster, bench.raw_file(64, 8))
    idle, fresh, busy = f"{count}, idle", f"{count}, just started", str(count)
    with (
        bench.hosts(("plugin",)) as hosts,
        many_hosts.filled_pool(bench) as fill,
    ):
        fill(disks)
        (host,) = hosts["plugin"]
        host.ask("know", **vars(image))
        watch = _Watch(bench, report, host, image)
        watch.boot()  # connects
        watch.case(ALONE)
        with crowd(bench) as others:
            bench.progress(f"{NAME}: {count} hosts connect")
            others.gather(count)
            watch.case(fresh, others, works=True)
            for _ in range(bench.times(3)):
                watch.case(idle, others)
                watch.case(busy, others, works=True)
        watch.case(ALONE)
    order = (ALONE, idle, busy, fresh)
    report.rows.sort(key=lambda row: order.index(row.case))
    return report


@dataclasses.dataclass(frozen=True)
class _Watch:
    """One host, which boots again and again beside the others."""

    bench: Bench
    report: Report
    host: Host
    image: images.Image

    def case(
        self, case: str, others: Crowd | None = None, works: bool = False
    ) -> None:
        """Boot for some time, and add the samples.

        :param works: whether the others do their work meanwhile
        """
        self.bench.progress(f"{NAME}: {case} other hosts")
        before, began = self._totals(others), time.monotonic()
        if others and works:
            self._begin(others)
        boots = []
        while time.monotonic() - began < self._seconds:
            boots.append(self.boot())
            time.sleep(PAUSE_SECONDS)
        if others and works:
            others.answers()
        seconds = time.monotonic() - began
        after = self._totals(others)
        work = {key: (after[key] - before[key]) / seconds for key in after}
        for each in boots:
            self.report.add(case, "plugin", {"ms": each["ms"], **work})

    def boot(self) -> dict[str, float]:
        instance, image = str(uuid.uuid4()), self.image.image_id
        found = self.host.ask("boot", instance=instance, image=image)
        self.host.ask("delete", instance=instance)
        return found

    @property
    def _seconds(self) -> int:
        return self.bench.size(SECONDS, 4)

    def _begin(self, others: Crowd) -> None:
        with self.bench.cluster.admin() as admin:
            for pool in many_hosts.POOLS:
                end_periods(admin, pool)
        boots = seconds = self._seconds
        image = vars(self.image)
        others.tell("live", boots, image=image, seconds=seconds)

    def _totals(self, others: Crowd | None) -> dict[str, float]:
        meters = self.bench.meters
        requests = self.host.ask("requests")
        if others:
            requests += others.requests()
        return {
            "requests": requests,
            "osd_ms": meters.cpu_ms("osd."),
            "mon_ms": meters.cpu_ms("mon."),
        }
