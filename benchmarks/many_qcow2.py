# SPDX-License-Identifier: Apache-2.0

"""N instances of a qcow2 image in Glance's file store."""

from benchmarks import images
from benchmarks.bench import Bench
from benchmarks.many import COLUMNS, Many
from benchmarks.results import Report

NAME = "many_qcow2"
TITLE = "N instances of a qcow2 image in Glance's file store, on H hosts"
VIRTUAL_MIB, DATA_MIB = 1024, 200
ABOUT = (
    f"The image has {VIRTUAL_MIB} MiB, {DATA_MIB} MiB of them data, and no "
    "host has seen it. Each host is a process with its own local cache and "
    "connection, which builds ten at a time. The floor copies the image once, "
    "with qemu-img straight into the pool, and clones the copy."
)


def run(bench: Bench) -> Report:
    report = Report(NAME, TITLE, ABOUT, COLUMNS)
    virtual, data = bench.size((VIRTUAL_MIB, DATA_MIB), (64, 16))
    raw = bench.raw_file(virtual, data)
    image = images.in_file(images.qcow2_of(raw), "qcow2")
    counts = bench.size([1, 10, 50, 200], [3])
    host_counts = bench.size([1, 2, 4], [2])

    def rounds(side: str, count: int) -> int:
        if count >= 50 and side == "in-tree":
            return 1  # a round takes minutes
        return bench.times(3)

    Many(bench, report, image, data, True, rounds).run(counts, host_counts)
    return report
