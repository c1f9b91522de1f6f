# SPDX-License-Identifier: Apache-2.0

"""Run suites on several releases of Nova and of Debian, with their Cephs.

Prints a table as it goes; all else goes to standard error.
"""

import argparse
import itertools
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from tests.matrix import suite as suites
from tests.matrix import table
from tests.matrix.combination import Combination
from tests.matrix.roots import SUITES, say
from tests.testbed import nova_threads, versions
from tests.testbed.process import TestbedError

COLUMNS = (
    ("Debian", 6),
    ("Ceph", 7),
    ("cluster", 14),
    ("QEMU", 7),
    ("libvirt", 7),
    ("Python", 7),
    ("Nova", 6),
    ("threads", 8),
    ("suite", 10),
    ("passed", 6),
    ("failed", 6),
    ("seconds", 7),
)


def rows(
    on: Combination, wanted: Sequence[suites.Suite]
) -> Iterator[tuple[object, ...]]:
    """Run the suites, and yield the cells of a row for each."""
    with on.ready():
        releases = on.releases()
        for suite in wanted:
            say(f"Debian {on.debian}, Nova {on.nova}: {suite.name}")
            started = time.monotonic()
            passed, failed = suite.count(*on.run(suite.command))
            seconds = round(time.monotonic() - started)
            yield (
                *(on.debian, *releases, on.nova, on.threads),
                *(suite.name, passed, failed, seconds),
            )


def combinations(asked: argparse.Namespace) -> Iterator[Combination]:
    """Yield what the command line asks for."""
    novas = asked.nova or [versions.NOVA]
    for debian, nova in itertools.product(asked.debian or SUITES, novas):
        possible = nova_threads.kinds(int(nova.split(".")[0]))
        for kind in asked.threads or possible[:1]:
            if kind in possible:
                yield Combination(
                    debian, tuple(asked.cluster or ()), nova, kind
                )
            else:
                say(f"Nova {nova} does not run on {kind} threads: left out")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="tools/matrix.sh",
        description=__doc__,
        epilog="What follows -- is passed to pytest.",
    )
    parser.add_argument(
        "--debian",
        action="append",
        choices=list(SUITES),
        help="may be repeated (all)",
    )
    parser.add_argument(
        "--cluster",
        action="append",
        choices=list(SUITES),
        help="the Debian whose Ceph the clusters have (the same); more than "
        "one: a test upgrades a cluster from each to the next",
    )
    parser.add_argument(
        "--nova",
        action="append",
        choices=versions.known(),
        help=f"may be repeated ({versions.NOVA})",
    )
    for name, kind in (("--eventlet", "eventlet"), ("--threads", "native")):
        parser.add_argument(
            name,
            dest="threads",
            action="append_const",
            const=kind,
            help=f"run Nova on {kind} threads; both may be given",
        )
    parser.add_argument(
        "what",
        nargs="*",
        metavar="SUITE-OR-TEST",
        help=f"{', '.join(suites.KNOWN)}, or a path below tests "
        f"({', '.join(suites.USUAL)}); ceph is what depends on Ceph most",
    )
    words, end = sys.argv[1:], [*sys.argv[1:], "--"].index("--")
    asked, options = parser.parse_args(words[:end]), words[end + 1 :]
    wanted = suites.chosen(asked.what or suites.USUAL, options)
    print(table.head(COLUMNS))
    passed = failed = 0
    for on in combinations(asked):
        try:
            for cells in rows(on, wanted):
                print(table.line(COLUMNS, cells), flush=True)
                passed += int(str(cells[-3]))
                failed += int(str(cells[-2]))
        except (TestbedError, subprocess.CalledProcessError) as error:
            say(f"Debian {on.debian} cannot be used: {error}")
            failed += 1
    print(table.border(COLUMNS))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
