# SPDX-License-Identifier: Apache-2.0

"""Read what the guest (parts/init.c) said on its serial console."""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Iterable
from typing import Any

from tests.testbed.process import wait_for

# For an emulated guest's start. That takes 3 s of CPU time with the kernel of
# Debian 12 and up to 8 s with newer ones, which twenty programs may share.
LIMIT_SECONDS = 240.0


@dataclasses.dataclass(frozen=True)
class Console:
    """All that a guest said over its boots; the newest last.

    :param markers: a dict for each boot: boots, counter, missing, root, disks
    :param disks: the disks as last reported: name -> bytes, type, label
    :param config_drive: uuid and name; None if the guest has found no drive,
        or has not looked yet
    :param counter: the last number announced as safe on the disk
    :param failed: lines that tell of a fault
    """

    markers: tuple[dict[str, Any], ...]
    disks: dict[str, Any]
    config_drive: dict[str, str] | None
    counter: int
    failed: tuple[str, ...]


def parse(text: str) -> Console:
    """Read a console's text; leave out incomplete lines."""
    said = [
        line.partition(" ")[::2]
        for line in text.replace("\r", "").split("\n")[:-1]
    ]
    markers = tuple(_decoded(v for w, v in said if w == "GUEST-MARKER"))
    changes = _decoded(v for w, v in said if w == "GUEST-DISKS")
    drives = _decoded(v for w, v in said if w == "GUEST-CONFIG-DRIVE")
    counters = [int(v) for w, v in said if w == "GUEST-COUNTER"]
    faults = ("GUEST-FAILED", "GUEST-COUNTER-ERROR")
    return Console(
        markers=markers,
        disks=(changes or [m["disks"] for m in markers] or [{}])[-1],
        config_drive=drives[-1] if drives else None,
        counter=max(counters, default=0),
        failed=tuple(f"{w} {v}" for w, v in said if w in faults),
    )


def _decoded(lines: Iterable[str]) -> list[Any]:
    """Decode the lines' JSON; leave out incomplete lines.

    A process of the guest may die in the middle of a line, which is no fault
    of a disk. That was seen after a live migration: tests/e2e/standstill.py.
    """
    told = []
    for line in lines:
        with contextlib.suppress(json.JSONDecodeError):
            told.append(json.loads(line))
    return told


def read(log: pathlib.Path) -> Console:
    """Read a serial console's log file, which may not exist yet."""
    if not log.exists():
        return parse("")
    return parse(log.read_text(errors="replace"))


def wait_for_boot(
    log: pathlib.Path, boots: int = 1, limit_seconds: float = LIMIT_SECONDS
) -> Console:
    """Return the console once the guest has come up ``boots`` times."""
    wait_for(
        f"boot {boots} of the guest in {log}",
        lambda: len(read(log).markers) >= boots,
        limit_seconds,
    )
    return read(log)


def wait_for_counter(
    log: pathlib.Path, at_least: int, limit_seconds: float = LIMIT_SECONDS
) -> Console:
    """Return the console once the guest's counter has come so far."""
    wait_for(
        f"the guest's counter reaches {at_least} in {log}",
        lambda: read(log).counter >= at_least,
        limit_seconds,
    )
    return read(log)
