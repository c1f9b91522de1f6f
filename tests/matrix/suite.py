# SPDX-License-Identifier: Apache-2.0

"""What tools/matrix.sh can run, and how it reads what that has printed."""

import dataclasses
import re
from collections.abc import Callable, Sequence

# The suites that need no OpenStack.
USUAL = ("unit", "contract", "functional", "nova")
# Not made of tests; the suites besides are folders of tests.
DEMO, BENCHMARK = "demo", "benchmark"
KNOWN = (*USUAL, "e2e", "ceph", DEMO, BENCHMARK)
# What depends on Ceph most, without guests: "ceph" on the command line.
CEPH = (
    "contract",
    "functional/storage/disks/test_full_pool.py",
    "functional/storage/images/test_purge_report.py",
    "functional/storage/snapshots/test_snapshots.py",
    "functional/storage/test_fencing.py",
    "nova/virt/boot/test_encrypted_disks.py",
)
# A testbed of its own, beside one that a developer keeps.
TESTBED = "matrix"


@dataclasses.dataclass(frozen=True)
class Suite:
    """A row of the table.

    :ivar count: how many passed and failed, of exit code and output
    """

    name: str
    command: list[str]
    count: Callable[[int, str], tuple[int, int]]


def chosen(words: Sequence[str], options: Sequence[str]) -> list[Suite]:
    """Return what the words of the command line name.

    :param words: suites, and paths of tests; tests of one suite share a row
    :param options: pytest's
    """
    found: dict[str, Suite] = {}
    paths: dict[str, list[str]] = {}
    for word in words:
        for part in CEPH if word == "ceph" else (word,):
            name = part.removeprefix("tests/").split("/")[0]
            if part == DEMO:
                command = ["tools/demo.sh", "--name", TESTBED]
                found[name] = Suite(name, command, steps)
            elif part == BENCHMARK:
                command = ["tools/benchmark.sh", "--quick"]
                found[name] = Suite(name, command, once)
            else:
                path = f"tests/{part.removeprefix('tests/')}"
                paths.setdefault(name, []).append(path)
                command = ["tools/test.sh", "--no-linters"]
                command += [*paths[name], *options]
                found[name] = Suite(name, command, tests)
    return list(found.values())


def tests(code: int, output: str) -> tuple[int, int]:
    """Count pytest's tests by its closing line."""
    closing = output.rstrip().rpartition("\n")[2]
    found = {
        what.removesuffix("s"): int(number)
        for number, what in re.findall(r"(\d+) (\w+)", closing)
    }
    failed = found.get("failed", 0) + found.get("error", 0)
    passed = found.get("passed", 0)
    # A run that ends in another way is a failure as well, and so is one that
    # has only skipped: nothing was shown.
    return passed, failed or int(code != 0 or not passed)


def steps(code: int, output: str) -> tuple[int, int]:
    """Count the steps that the demo has proved; it ends at a failure."""
    table = output.rpartition("\nstep ")[2]
    return len(re.findall(r"\d  ok\b", table)), int(code != 0)


def once(code: int, output: str) -> tuple[int, int]:
    """Count a program that asserts nothing as one."""
    return int(code == 0), int(code != 0)
