# SPDX-License-Identifier: Apache-2.0

"""Boot many instances of one new image on several hosts at once."""

import dataclasses
import time
import uuid
from collections.abc import Callable
from typing import Any

from benchmarks import images
from benchmarks.bench import Bench, in_turn
from benchmarks.results import Column, Report

MIB = 1 << 20
# By this time all hosts have been told to begin.
HEAD_START_SECONDS = 0.3
COLUMNS = (
    Column("seconds", "seconds", 2, spread=True, ratio=True),
    Column("written_mib", "MiB written", 0),
    Column("stored_mib", "MiB stored", 0),
    Column("local_mib", "MiB left locally", 0),
)


@dataclasses.dataclass(frozen=True)
class Many:
    """One benchmark's choices.

    :ivar copies: whether the in-tree backend copies the data each time
    """

    bench: Bench
    report: Report
    image: images.Image
    data_mib: int
    copies: bool
    rounds: Callable[[str, int], int]

    def run(self, counts: list[int], host_counts: list[int]) -> None:
        with self.bench.hosts(count=max(host_counts)) as hosts:
            self._warm(hosts)
            for count in counts:
                for host_count in host_counts:
                    if host_count <= count:
                        self._case(hosts, count, host_count)

    def _warm(self, hosts: dict[str, list[Any]]) -> None:
        """Make each host connect and load its modules."""
        for side, of_side in hosts.items():
            for host in of_side:
                self._measure(side, [host], 1)

    def _case(
        self, hosts: dict[str, list[Any]], count: int, host_count: int
    ) -> None:
        case = f"{count} on {host_count}"
        needed = count * self.data_mib / 1024
        for side in hosts:
            self.report.row(case, side)
        for number in range(max(self.rounds(s, count) for s in hosts)):
            for side in in_turn(hosts, number):
                if self._is_too_big(side, needed):
                    why = f"needs {needed:.0f} GiB in the cluster"
                    self.report.not_run(case, side, why)
                elif number < self.rounds(side, count):
                    self.bench.progress(
                        f"{self.report.name}: {case} hosts, {side}, "
                        f"round {number + 1}"
                    )
                    chosen = hosts[side][:host_count]
                    sample = self._measure(side, chosen, count)
                    self.report.add(case, side, sample)

    def _is_too_big(self, side: str, needed_gib: float) -> bool:
        return (
            self.copies
            and side == "in-tree"
            and needed_gib > self.bench.limit_gib
        )

    def _measure(
        self, side: str, hosts: list[Any], count: int
    ) -> dict[str, float]:
        """Boot all instances at once, of an image that no host has seen."""
        image = self.image.fresh()
        for host in hosts:
            host.ask("know", **vars(image))
        before = self.bench.meters.at_rest()
        begin = time.monotonic()
        if side == "floor" and image.path:
            self._import_base(hosts, image)
        at = time.monotonic() + HEAD_START_SECONDS
        for number, host in enumerate(hosts):
            own = range(number, count, len(hosts))
            host.tell(
                "boot_many",
                instances=[str(uuid.uuid4()) for _ in own],
                image=image.image_id,
                at=at,
            )
        end = max(host.answer()["end"] for host in hosts)
        after = self.bench.meters.read()
        sample = {
            "seconds": end - begin - HEAD_START_SECONDS,
            **{key: after[key] - before[key] for key in after},
            "local_mib": sum(h.ask("left_locally")["bytes"] for h in hosts)
            / MIB,
        }
        self._tidy(hosts)
        return sample

    @staticmethod
    def _import_base(hosts: list[Any], image: images.Image) -> None:
        """Copy the data once, by one program, as the floor does."""
        first, *others = hosts
        first.ask(
            "import_base",
            image=image.image_id,
            path=image.path,
            disk_format=image.disk_format,
        )
        for host in others:
            host.ask("know_base", image=image.image_id)

    def _tidy(self, hosts: list[Any]) -> None:
        for host in hosts:
            host.ask("forget")
        name = self.image.url.split("/")[-2] if self.image.url else ""
        self.bench.meters.clean(keep=[name])
