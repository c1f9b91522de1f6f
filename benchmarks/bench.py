# SPDX-License-Identifier: Apache-2.0

"""What each benchmark is given: a cluster, its sizes, a folder, hosts."""

import contextlib
import dataclasses
import pathlib
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from benchmarks import images, meters
from benchmarks.hosts import Host
from benchmarks.results import SIDES
from tests.support.clusters import disconnect
from tests.testbed.ceph import cluster as ceph


@dataclasses.dataclass
class Bench:
    """One run's surroundings.

    :ivar quick: small sizes and few rounds, which show that it works
    :ivar limit_gib: what one measurement may store in the cluster
    """

    cluster: ceph.CephCluster
    folder: pathlib.Path
    meters: meters.Meters
    quick: bool = False
    rounds: int | None = None
    limit_gib: float = 20.0
    _hosts: dict[str, Host] = dataclasses.field(default_factory=dict)

    def size(self, full: Any, quick: Any) -> Any:
        """Choose the size for a full run, or the size for a quick one."""
        return quick if self.quick else full

    def times(self, full: int) -> int:
        """The number of rounds asked for, or else the benchmark's own."""
        return self.rounds or self.size(full, 1)

    @property
    def warm_ups(self) -> int:
        """Rounds that do not count, in which hosts connect and fill caches."""
        return self.size(1, 0)

    def progress(self, words: str) -> None:
        """Say what is being done, on one line."""
        if sys.stderr.isatty():
            print(f"\r\033[K{words}", end="", file=sys.stderr, flush=True)
        else:
            now = time.strftime("%H:%M:%S")
            print(f"{now} {words}", file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def hosts(
        self,
        sides: tuple[str, ...] = SIDES,
        count: int = 1,
        user: str = "nova",
        green: bool = False,
    ) -> Iterator[dict[str, list[Host]]]:
        """Give ``count`` ready hosts of each side, which may not be new.

        In a quick run, in which benchmarks share a cluster, removes all images
        and local files at the end.
        """
        chosen = {
            side: [self.host(side, n, user, green) for n in range(count)]
            for side in sides
        }
        everyone = [host for of_side in chosen.values() for host in of_side]
        for host in everyone:
            host.wait_until_ready()
        yield chosen
        if self.quick:
            for host in everyone:
                host.ask("forget")
            self.meters.clean()

    def host(
        self, side: str, number: int, user: str = "nova", green: bool = False
    ) -> Host:
        """Return one host, which may not be ready yet; start it if needed."""
        name = f"{side}-{number}-{user}{'-green' * green}"
        if name not in self._hosts:
            place = self.folder / "hosts" / name
            self._hosts[name] = Host(side, place, self.cluster, user, green)
        return self._hosts[name]

    def end_hosts(self, side: str = "") -> None:
        """End the hosts, of one side or all."""
        for name, host in list(self._hosts.items()):
            if side in ("", host.side):
                host.end()
                del self._hosts[name]

    def close(self) -> None:
        self.end_hosts()
        self.meters.close()

    def raw_file(self, virtual_mib: int, data_mib: int) -> pathlib.Path:
        """A sparse raw file of these sizes; made once."""
        path = self.folder / f"{virtual_mib}-{data_mib}.raw"
        if not path.exists():
            self.progress(f"making an image of {virtual_mib} MiB")
            images.write_raw(path, virtual_mib, data_mib)
        return path


@contextlib.contextmanager
def on_throwaway_ceph(
    quick: bool = False, rounds: int | None = None, limit_gib: float = 20.0
) -> Iterator[Bench]:
    """Start a Ceph for one run; remove it and all else at the end."""
    with tempfile.TemporaryDirectory(prefix="nova-rbd-bench.") as folder:
        cluster = ceph.CephCluster(pathlib.Path(folder, "ceph"))
        try:
            cluster.start()
            bench = Bench(
                cluster,
                pathlib.Path(folder),
                meters.Meters(cluster),
                quick,
                rounds,
                limit_gib,
            )
            with contextlib.closing(bench):
                yield bench
        finally:
            disconnect(cluster)
            cluster.destroy()


def in_turn(sides: dict[str, Any], number: int) -> list[str]:
    """Return the sides in turn: each round begins with another side."""
    names = list(sides)
    first = number % len(names)
    return names[first:] + names[:first]
