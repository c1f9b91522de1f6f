# SPDX-License-Identifier: Apache-2.0

"""Compare the import of an image with Ceph's and QEMU's own programs."""

import contextlib
import pathlib
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks import images
from benchmarks.bench import Bench, in_turn
from benchmarks.floor_side import convert_command
from benchmarks.nova_side import allocated
from benchmarks.results import Column, Report

MIB = 1 << 20
NAME = "import_speed"
TITLE = "Import of an image of 4 GiB with 1 GiB of data"
ABOUT = (
    '"raw file" is the import of a local file alone. "qcow2 in Glance" is the '
    "boot of the first instance of a qcow2 image in Glance's file store, with "
    "download, Nova's checks and conversion; the programs are given the file "
    'itself, so that they need neither download nor checks. "MiB local" is '
    "the space on the local disk, beside the image that is read: the most "
    "that was in use, and what was left."
)
COLUMNS = (
    Column("seconds", "seconds", 2, spread=True),
    Column("cpu_seconds", "CPU seconds", 2),
    Column("data_mib_s", "MiB/s of data", 0),
    Column("local_peak_mib", "MiB local, at most", 0),
    Column("local_left_mib", "MiB local, left", 0),
)
RAW, QCOW2 = "raw file", "qcow2 in Glance"


def run(bench: Bench) -> Report:
    report = Report(NAME, TITLE, ABOUT, COLUMNS)
    virtual, data = bench.size((4096, 1024), (256, 64))
    raw = bench.raw_file(virtual, data)
    qcow2 = images.in_file(images.qcow2_of(raw), "qcow2")
    with bench.hosts() as hosts:
        works = _works(bench, hosts, raw, qcow2)
        for number in range(bench.times(5) + bench.warm_ups):
            for case, sides in works.items():
                for side in in_turn(sides, number):
                    bench.progress(f"{NAME}: {case}, {side}, round {number}")
                    sample = measured(bench, sides[side], data)
                    if number >= bench.warm_ups:
                        report.add(case, side, sample)
    return report


Work = Callable[[], dict[str, float]]


def _works(
    bench: Bench,
    hosts: dict[str, list[Any]],
    raw: pathlib.Path,
    qcow2: images.Image,
) -> dict[str, dict[str, Work]]:
    conf = str(bench.cluster.conf)
    floor = hosts["floor"][0]
    staged = floor.folder / "instances" / "staged.raw"
    staged.parent.mkdir(exist_ok=True)

    def nova_import(side: str) -> Work:
        return lambda: hosts[side][0].ask(
            "import_file", path=str(raw), instance=str(uuid.uuid4())
        )

    def nova_boot(side: str) -> Work:
        return lambda: first_boot(hosts[side][0], qcow2)

    def convert(path: str | None, disk_format: str) -> dict[str, float]:
        command = convert_command(
            conf, str(path), disk_format, f"{uuid.uuid4()}_disk"
        )
        return floor.ask("tool", command=command)

    def by_rbd_import(path: pathlib.Path) -> dict[str, float]:
        command = ["rbd", "--conf", conf, "--id", "nova", "import"]
        command += ["--pool", "vms", str(path), f"{uuid.uuid4()}_disk"]
        return floor.ask("tool", command=command)

    def by_file() -> dict[str, float]:
        """Import as the in-tree backend does, without download and checks."""
        command = ["qemu-img", "convert", "-O", "raw", "-f", "qcow2"]
        command += [str(qcow2.path), str(staged)]
        first = floor.ask("tool", command=command)
        second = by_rbd_import(staged)
        keys = ("ms", "cpu_seconds")
        return {key: first[key] + second[key] for key in keys}

    return {
        RAW: {
            "plugin": nova_import("plugin"),
            "in-tree": nova_import("in-tree"),
            "rbd import": lambda: by_rbd_import(raw),
            "qemu-img convert": lambda: convert(str(raw), "raw"),
        },
        QCOW2: {
            "plugin": nova_boot("plugin"),
            "in-tree": nova_boot("in-tree"),
            "rbd import": by_file,
            "qemu-img convert": lambda: convert(qcow2.path, "qcow2"),
        },
    }


def first_boot(
    host: Any, image: images.Image, gib: int = 4
) -> dict[str, float]:
    """Boot from an image that no cache knows."""
    fresh = image.fresh()
    host.ask("know", **vars(fresh))
    return host.ask(
        "boot", instance=str(uuid.uuid4()), image=fresh.image_id, gib=gib
    )


def measured(bench: Bench, work: Work, data_mib: int) -> dict[str, float]:
    """Do the work, and clean up what it leaves locally and in Ceph."""
    with _watched(bench.folder) as peak:
        found = work()
    ms = found["ms"]
    left = sum(map(allocated, bench.folder.glob("hosts/*/instances")))
    for place in bench.folder.glob("hosts/*/instances/**/*"):
        if place.is_file():
            place.unlink()
    bench.meters.clean()
    return {
        "seconds": ms / 1000,
        "cpu_seconds": found["cpu_seconds"],
        "data_mib_s": data_mib / ms * 1000,
        "local_peak_mib": max(peak) / MIB,
        "local_left_mib": left / MIB,
    }


@contextlib.contextmanager
def _watched(folder: pathlib.Path) -> Iterator[list[int]]:
    """Note many times a second what the hosts have on the local disk."""
    found, done = [0], threading.Event()

    def look() -> None:
        while not done.wait(0.02):
            found.append(sum(map(allocated, folder.glob("hosts/*/instances"))))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join()
