# SPDX-License-Identifier: Apache-2.0

"""Many hosts boot from one new image in the same second."""

import uuid

from benchmarks.bench import Bench
from benchmarks.crowd import Crowd, crowd
from benchmarks.results import Column, Report
from nova_rbd_backend import names

NAME = "one_base"
TITLE = "Wait for one new base with N hosts"
ABOUT = (
    "All hosts ask within one second. The one that makes the base downloads "
    "for 20 s and copies 200 MiB into the pool. All others wait, and ask the "
    "cluster from time to time whether the base is there."
)
COLUMNS = (
    Column("late", "seconds after the maker, at most", 2, spread=True),
    Column("made", "times made", 0),
    Column("seconds", "seconds in all", 1),
    Column("requests", "requests to OSDs per second", 0),
    Column("osd_ms", "CPU of the OSDs, ms per second", 0),
)
DOWNLOAD_SECONDS = 20


def run(bench: Bench) -> Report:
    report = Report(NAME, TITLE, ABOUT, COLUMNS)
    raw = bench.raw_file(*bench.size((1024, 200), (64, 16)))
    with crowd(bench) as hosts:
        for count in bench.size([10, 100, 1000], [4, 10]):
            bench.progress(f"{NAME}: {count} hosts connect")
            hosts.gather(count)
            for number in range(bench.times(3)):
                bench.progress(f"{NAME}: {count} hosts, round {number + 1}")
                sample = _together(bench, hosts, count, str(raw))
                report.add(str(count), "plugin", sample)
    return report


def _together(
    bench: Bench, hosts: Crowd, count: int, path: str
) -> dict[str, float]:
    name = names.base_image(str(uuid.uuid4()), "")
    sent, cpu_ms = hosts.requests(), bench.meters.cpu_ms("osd.")
    at = hosts.tell(
        "ask_for_base",
        count,
        name=name,
        path=path,
        seconds=bench.size(DOWNLOAD_SECONDS, 2),
    )
    found = [each for answer in hosts.answers() for each in answer]
    end = max(each["end"] for each in found)
    made = [each["end"] for each in found if each["made"]]
    sample = {
        "late": end - min(made),
        "made": len(made),
        "seconds": end - at,
        "osd_ms": (bench.meters.cpu_ms("osd.") - cpu_ms) / (end - at),
        "requests": (hosts.requests() - sent) / (end - at),
    }
    bench.meters.clean()
    return sample
