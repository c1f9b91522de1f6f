# SPDX-License-Identifier: Apache-2.0

"""Compare the import of a file with Ceph's and QEMU's own programs."""

import uuid
from collections.abc import Callable
from typing import Any

from benchmarks.bench import Bench, in_turn
from benchmarks.first_boot import measured
from benchmarks.floor_side import convert_command
from benchmarks.results import Column, Report

NAME = "import_speed"
TITLE = "Import of a raw file of 4 GiB with 1 GiB of data"
ABOUT = (
    "The file is on the local disk, and nothing checks it. For a whole first "
    "boot see first_boot."
)
COLUMNS = (
    Column("seconds", "seconds", 2, spread=True),
    Column("cpu_seconds", "CPU seconds", 2),
    Column("data_mib_s", "MiB/s of data", 0),
)
CASE = "raw file"


def run(bench: Bench) -> Report:
    report = Report(NAME, TITLE, ABOUT, COLUMNS)
    virtual, data = bench.size((4096, 1024), (256, 64))
    path = str(bench.raw_file(virtual, data))
    with bench.hosts() as hosts:
        works = _works(bench, hosts, path)
        for number in range(bench.times(5) + bench.warm_ups):
            for side in in_turn(works, number):
                bench.progress(f"{NAME}: {side}, round {number}")
                found = measured(bench, works[side])
                found["data_mib_s"] = data / found["seconds"]
                if number >= bench.warm_ups:
                    report.add(CASE, side, found)
    return report


Work = Callable[[], dict[str, float]]


def _works(
    bench: Bench, hosts: dict[str, list[Any]], path: str
) -> dict[str, Work]:
    conf, (floor,) = str(bench.cluster.conf), hosts["floor"]

    def by_nova(side: str) -> Work:
        return lambda: hosts[side][0].ask(
            "import_file", path=path, instance=str(uuid.uuid4())
        )

    def by_qemu_img() -> dict[str, float]:
        target = f"{uuid.uuid4()}_disk"
        command = convert_command(conf, path, "raw", target)
        return floor.ask("tool", command=command)

    def by_rbd() -> dict[str, float]:
        command = ["rbd", "--conf", conf, "--id", "nova", "import"]
        command += ["--pool", "vms", path, f"{uuid.uuid4()}_disk"]
        return floor.ask("tool", command=command)

    return {
        "plugin": by_nova("plugin"),
        "in-tree": by_nova("in-tree"),
        "rbd import": by_rbd,
        "qemu-img convert": by_qemu_img,
    }
