# SPDX-License-Identifier: Apache-2.0

"""What a nova-compute costs: its threads, open files and memory."""

import dataclasses

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


#: What a nova-compute may have grown by since its start: pools of threads
#: fill up, connections to Ceph and caches are made when first needed.
ALLOWED = Burden(0, threads=80, files=60, memory_mib=200)


def grown(before: Burden, after: Burden) -> list[str]:
    """Return what has grown by more than is allowed."""
    found = []
    for name in ("threads", "files", "memory_mib"):
        first, last = getattr(before, name), getattr(after, name)
        if last - first > getattr(ALLOWED, name):
            found.append(f"{name}: {first}, then {last}")
    return found
