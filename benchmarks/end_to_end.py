# SPDX-License-Identifier: Apache-2.0

"""Boot ten servers by one API request to a whole OpenStack.

Two compute hosts, one with each backend, share the cluster. A request goes to
one of them.
"""

import argparse
import pathlib
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from openstack.compute.v2.flavor import Flavor

from benchmarks import hosts, images, meters
from benchmarks.bench import in_turn
from benchmarks.results import Column, Report
from tests.testbed.openstack.servers import ServerFault, Servers
from tests.testbed.process import wait_for
from tests.testbed.whole import Testbed

NAME = "end_to_end"
TITLE = "Ten servers in one API request, until all are ACTIVE"
ABOUT = (
    "All ten are on one host, which has not seen their image of 1 GiB with "
    "200 MiB of data. Each host can build ten at a time. The floor is the "
    "storage work alone, with the bare calls."
)
COLUMNS = (
    Column("seconds", "seconds", 1, spread=True),
    Column("stored_mib", "MiB stored", 0),
)
COUNT = 10
SECONDS = 300
TESTBED = "benchmark"
RAW, QCOW2 = "raw in RBD", "qcow2 in files"


def run(options: argparse.Namespace) -> Report:
    report = Report(NAME, TITLE, ABOUT, COLUMNS)
    rounds = options.rounds or (1 if options.quick else 3)
    with (
        tempfile.TemporaryDirectory(prefix="nova-rbd-bench.") as folder,
        _testbed() as stack,
    ):
        place = pathlib.Path(folder)
        raw = place / "image.raw"
        images.write_raw(raw, 1024, 200)
        files = {RAW: raw, QCOW2: images.qcow2_of(raw)}
        floor = hosts.Host("floor", place / "floor", stack.cluster)
        try:
            floor.wait_until_ready()
            run_ = _Run(stack, files, floor)
            for number in range(rounds):
                for case in files:
                    for side in in_turn(run_.sides, number):
                        print(f"{NAME}: {case}, {side}, round {number + 1}")
                        report.add(case, side, run_.sides[side](case))
            run_.close()
        finally:
            floor.end()
    return report


@contextmanager
def _testbed() -> Iterator[Testbed]:
    stack = Testbed(TESTBED, hosts=2)
    stack.down()
    try:
        stack.up()
        stack.restart_compute(stack.hosts[1], backend="in-tree")
        yield stack
    finally:
        stack.down()


class _Run:
    """The requests, on one testbed."""

    def __init__(
        self, stack: Testbed, files: dict[str, pathlib.Path], floor: Any
    ) -> None:
        self._servers: Servers = stack.servers()
        self._nova = stack.openstack.connection().compute
        self._glance = stack.openstack.connection().image
        self._flavor: Flavor = self._servers.flavor("benchmark", disk_gib=1)
        self._cluster = stack.cluster
        self._files, self._floor = files, floor
        self._meters = meters.Meters(stack.cluster)
        plugin, in_tree = (host.name for host in stack.hosts)
        self.sides = {
            "plugin": lambda case: self._request(case, plugin),
            "in-tree": lambda case: self._request(case, in_tree),
            "floor": self._bare,
        }

    def close(self) -> None:
        self._meters.close()

    def _request(self, case: str, host: str) -> dict[str, float]:
        path = self._files[case]
        how = ("raw", "rbd") if case == RAW else ("qcow2", "file")
        image = self._servers.upload("benchmark", path, *how)
        before = self._meters.read()["stored_mib"]
        begin = time.monotonic()
        self._servers.create(
            "benchmark",
            image,
            self._flavor,
            min_count=COUNT,
            availability_zone=f"nova:{host}",
        )
        wait_for("all are ACTIVE", self._all_active, SECONDS, 0.1)
        seconds = time.monotonic() - begin
        stored = self._meters.read()["stored_mib"] - before
        self._servers.delete_all()
        self._meters.wait_for_empty_trash()
        self._glance.delete_image(image)
        return {"seconds": seconds, "stored_mib": stored}

    def _all_active(self) -> bool:
        found = list(self._nova.servers(details=True))
        for server in found:
            if server.status == "ERROR":
                raise ServerFault(self._nova.get_server(server.id))
        active = [
            s for s in found if s.status == "ACTIVE" and not s.task_state
        ]
        return len(active) == COUNT

    def _bare(self, case: str) -> dict[str, float]:
        """The same storage work on an open connection."""
        if case == RAW:
            image = images.in_ceph(self._cluster, self._files[RAW])
        else:
            image = images.in_file(self._files[QCOW2], "qcow2")
        self._floor.ask("know", **vars(image))
        instances = [str(uuid.uuid4()) for _ in range(COUNT)]
        before = self._meters.read()["stored_mib"]
        begin = time.monotonic()
        if image.path:
            self._floor.ask(
                "import_base",
                image=image.image_id,
                path=image.path,
                disk_format=image.disk_format,
            )
        self._floor.ask(
            "boot_many", instances=instances, image=image.image_id, at=begin
        )
        seconds = time.monotonic() - begin
        stored = self._meters.read()["stored_mib"] - before
        for instance in instances:
            self._floor.ask("delete", instance=instance)
        return {"seconds": seconds, "stored_mib": stored}
