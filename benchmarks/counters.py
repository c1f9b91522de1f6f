# SPDX-License-Identifier: Apache-2.0

"""Count what a piece of work asks of Ceph and of the operating system."""

import collections
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import rados
import rbd

_counts: collections.Counter[str] = collections.Counter()


class _Rados(rados.Rados):  # type: ignore[misc]
    def connect(self, *args, **kwargs):
        _counts["connections"] += 1
        return super().connect(*args, **kwargs)


class _Image(rbd.Image):  # type: ignore[misc]
    def __init__(self, *args, **kwargs):
        _counts["opens"] += 1
        super().__init__(*args, **kwargs)


def _audit(event: str, args: tuple[object, ...]) -> None:
    if event in ("subprocess.Popen", "os.posix_spawn", "os.fork"):
        _counts["programs"] += 1


def install() -> None:
    """Count from here on, in this process, whoever makes the calls."""
    rados.Rados = _Rados
    rbd.Image = _Image
    sys.addaudithook(_audit)


@contextlib.contextmanager
def measured() -> Iterator[dict[str, float]]:
    """Give a sample that gets the block's milliseconds and counts."""
    sample: dict[str, float] = {}
    _counts.clear()
    started, used = time.perf_counter(), _cpu_seconds()
    yield sample
    milliseconds = (time.perf_counter() - started) * 1000
    cpu = _cpu_seconds() - used
    sample.update(ms=milliseconds, cpu_seconds=cpu, **_counts)


def _cpu_seconds() -> float:
    """Of this process and of the programs that it has run."""
    return sum(os.times()[:4])


def run(command: list[str]) -> None:
    """Run a program; :raises RuntimeError: with what it said."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr.strip()}")
