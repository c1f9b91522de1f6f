# SPDX-License-Identifier: Apache-2.0

"""N instances of a raw image in Glance's RBD store."""

from benchmarks import images
from benchmarks.bench import Bench
from benchmarks.many import COLUMNS, Many
from benchmarks.results import Report

NAME = "many_rbd"
TITLE = "N instances of a raw image in Glance's RBD store, on H hosts"
ABOUT = (
    "The same image, but raw and in Glance's pool of the same cluster. All "
    "sides clone it; the floor does so with the bare calls."
)


def run(bench: Bench) -> Report:
    report = Report(NAME, TITLE, ABOUT, COLUMNS)
    virtual, data = bench.size((1024, 200), (64, 16))
    image = images.in_ceph(bench.cluster, bench.raw_file(virtual, data))
    counts = bench.size([1, 10, 50, 200], [3])
    host_counts = bench.size([1, 2, 4], [2])

    def rounds(side: str, count: int) -> int:
        if count >= 200 and side == "in-tree":
            return 1  # a round takes minutes
        return bench.times(3)

    Many(bench, report, image, data, False, rounds).run(counts, host_counts)
    return report
