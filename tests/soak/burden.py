# SPDX-License-Identifier: Apache-2.0

"""What a nova-compute costs: its threads, open files and memory."""

import collections
import contextlib
import dataclasses
import pathlib

import psutil

MIB = 1 << 20


@dataclasses.dataclass(frozen=True)
class Burden:
    """One process at one time."""

    pid: int
    threads: int
    files: int
    memory_mib: int

    def __str__(self) -> str:
        return (
            f"{self.threads} threads, {self.files} files, "
            f"{self.memory_mib} MiB"
        )

    @classmethod
    def of(cls, pid: int) -> "Burden":
        process = psutil.Process(pid)
        with process.oneshot():
            return cls(
                pid,
                process.num_threads(),
                process.num_fds(),
                process.memory_info().rss // MIB,
            )


def threads_by_name(pid: int) -> str:
    """Return how many threads a process has of each name, most first."""
    names: collections.Counter[str] = collections.Counter()
    for path in pathlib.Path(f"/proc/{pid}/task").glob("*/comm"):
        with contextlib.suppress(OSError):  # it has just ended
            # A number at the end counts threads of one kind.
            names[path.read_text().strip().rstrip("0123456789")] += 1
    return ", ".join(f"{n} {name}" for name, n in names.most_common())


#: What a nova-compute may have grown by since its start: pools of threads
#: fill up (that of oslo.messaging alone has up to 64), connections to Ceph and
#: caches are made when first needed.
ALLOWED = Burden(0, threads=120, files=60, memory_mib=200)


def grown(before: Burden, after: Burden) -> list[str]:
    """Return what has grown by more than is allowed."""
    found = []
    for name in ("threads", "files", "memory_mib"):
        first, last = getattr(before, name), getattr(after, name)
        if last - first > getattr(ALLOWED, name):
            found.append(f"{name}: {first}, then {last}")
    return found
