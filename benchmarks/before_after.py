# SPDX-License-Identifier: Apache-2.0

"""Compare the times of this checkout with those of another, in one run.

``python -m benchmarks.before_after DIR [--rounds N]`` starts a throwaway Ceph
and one process for each checkout: "before" is the one in DIR, "after" is this
one. Each process runs its own checkout's benchmarks/nova_side.py, with the
Python of the caller. In each round both do the work of benchmarks.operations;
which one begins alternates. The ratios are those of the two times of one
round. Asserts nothing.

With another checkout of the same commit as DIR the ratios show the noise.
"""

import argparse
import contextlib
import os
import pathlib
import signal
import statistics

from benchmarks import bench, images, operations, tables
from benchmarks.hosts import Host
from tests.testbed import paths

Times = dict[str, dict[str, list[float]]]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.before_after",
        description=__doc__.split("\n")[0],
    )
    parser.add_argument(
        "before",
        type=pathlib.Path,
        metavar="DIR",
        help="another checkout of this project",
    )
    parser.add_argument(
        "--rounds", type=int, default=40, help="default %(default)s"
    )
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error("quartiles need two rounds")
    return options


def main() -> None:
    options = arguments()
    # SIGTERM cleans up as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    checkouts = {
        "before": options.before.resolve(),
        "after": paths.CHECKOUT,
    }
    load = os.getloadavg()[0]
    with bench.on_throwaway_ceph() as surroundings:
        found = measure(surroundings, checkouts, options.rounds)
    print("\n".join(table(found)))
    print(f"load {load:.1f} before, {os.getloadavg()[0]:.1f} after")


def measure(
    surroundings: bench.Bench,
    checkouts: dict[str, pathlib.Path],
    rounds: int,
) -> Times:
    """Milliseconds by case and checkout, one of each round."""
    cluster = surroundings.cluster
    image = images.in_ceph(cluster, surroundings.raw_file(64, 8))
    times: Times = {
        case: {name: [] for name in checkouts} for case in operations.CASES
    }
    with contextlib.ExitStack() as stack:
        hosts, disks = {}, {}
        for name, checkout in checkouts.items():
            place = surroundings.folder / name
            host = Host("plugin", place, cluster, checkout=checkout)
            stack.callback(host.end)
            host.wait_until_ready()
            host.ask("know", **vars(image))
            hosts[name] = host
            disks[name] = operations.filled_disk(surroundings, host, image)
        for number in range(rounds + 1):
            surroundings.progress(f"round {number} of {rounds}")
            for name in bench.in_turn(hosts, number):
                found = operations.one_round(
                    surroundings, hosts[name], image, disks[name]
                )
                if number:  # the first connects and warms the caches
                    for case, sample in found.items():
                        times[case][name].append(sample["ms"])
    return times


def table(times: Times) -> list[str]:
    """Medians beside each other; in brackets the quartiles of the ratios."""
    lines = [["case", "n", "before ms", "after ms", "after/before"]]
    lines[0].append("after is slower in")
    for case, found in times.items():
        pairs = list(zip(found["before"], found["after"], strict=True))
        low, ratio, high = statistics.quantiles(
            [after / before for before, after in pairs], n=4
        )
        slower = sum(after > before for before, after in pairs)
        lines.append(
            [
                case,
                str(len(pairs)),
                f"{statistics.median(found['before']):.1f}",
                f"{statistics.median(found['after']):.1f}",
                f"{ratio:.3f} [{low:.3f}-{high:.3f}]",
                str(slower),
            ]
        )
    return tables.columns(lines)


if __name__ == "__main__":
    main()
