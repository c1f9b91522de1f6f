# SPDX-License-Identifier: Apache-2.0

"""What happens to a server of the demonstration after its boot.

Each step prints how far the guest had counted before and after. The guest
flushes each number to its disk before it announces it. When it comes up, it
counts the numbers that its disk lacks.
"""

import time

from openstack.compute.v2.server import Server
from openstack.image.v2.image import Image

from tests.testbed.ceph import rbd_view
from tests.testbed.guest import console
from tests.testbed.process import TestbedError, wait_for
from tests.testbed.whole import Testbed

SNAPSHOT_SECONDS = 300
DETACH_SECONDS = 60
WRITE_SECONDS = 120


def prove(fact: object, what: str) -> None:
    """:raises TestbedError: the fact is not true"""
    if not fact:
        raise TestbedError(f"not proved: {what}")


class Life:
    """One server's life after its boot."""

    def __init__(self, testbed: Testbed, server: Server):
        self._testbed = testbed
        self._server = server
        self._image: Image | None = None
        self._copy: Server | None = None

    def snapshot(self) -> None:
        """Make an image of the server while it runs."""
        before = self._count(self._server)
        begin = time.monotonic()
        compute = self._testbed.openstack.connection().compute
        self._image = compute.create_server_image(
            self._server.id,
            "demo-snapshot",
            wait=True,
            timeout=SNAPSHOT_SECONDS,
        )
        self._testbed.servers().wait(self._server)
        seconds = time.monotonic() - begin
        print(f"    image {self._image.id} after {seconds:.1f} s")
        self._goes_on(self._server, before, boots=1)

    def boot_from_snapshot(self) -> None:
        """Boot a second server from the image, with the first one's data."""
        assert self._image is not None
        before = console.read(self._testbed.console(self._server))
        servers = self._testbed.servers()
        flavor = servers.flavor("demo", disk_gib=1)
        # The second host is going to lose its power.
        self._copy = servers.boot(
            "demo-copy",
            self._image,
            flavor,
            availability_zone=f"nova:{self._testbed.hosts[0].name}",
        )
        marker = self._testbed.wait_for_guest(self._copy).markers[-1]
        print(
            f"    the first guest counts {before.counter} now; its copy came "
            f"up with {marker['counter']}, {marker['missing']} missing"
        )
        prove(marker["missing"] == 0, "nothing that was flushed is missing")
        prove(marker["boots"] == 2, "the copy goes on from the first's disk")
        if self._testbed.backend == "plugin":
            self._show_snapshot(self._image)

    def _show_snapshot(self, image: Image) -> None:
        name = f"snapshot_{image.id}"

        def found() -> rbd_view.ImageView:
            images = rbd_view.images(self._testbed.cluster, "snapshots")
            return images[name]

        wait_for(
            f"{name} is detached",
            lambda: found().parent is None,
            DETACH_SECONDS,
        )
        print("\n".join(f"    {line}" for line in found().lines()))

    def live_migrate(self) -> None:
        """Move the server to the second host while it runs."""
        first, second = self._testbed.hosts
        before = self._count(self._server)
        begin = time.monotonic()
        self._testbed.moves().live(self._server, second.name)
        seconds = time.monotonic() - begin
        stood_still = second.downtime_seconds(self._server.id)
        print(
            f"    {first.name} to {second.name} in {seconds:.1f} s, of which "
            f"the guest stood still for {stood_still:.3f} s"
        )
        self._goes_on(self._server, before, boots=1)

    def evacuate(self) -> None:
        """Cut the second host's power; the guest starts on the first."""
        first, second = self._testbed.hosts
        before = self._count(self._server)
        self._testbed.cut_power(second)
        self._testbed.declare_down(second)
        begin = time.monotonic()
        self._testbed.moves().evacuate(self._server, first.name)
        print(f"    evacuated after {time.monotonic() - begin:.1f} s")
        marker = self._testbed.wait_for_guest(self._server).markers[-1]
        prove(marker["counter"] >= before, "all that was flushed is there")
        prove(marker["missing"] == 0, "nothing of it is missing")
        self._goes_on(self._server, before, boots=2)
        print(f"    it writes again after {time.monotonic() - begin:.1f} s")

    def restore(self) -> None:
        """Bring the second host back; the guest stays where it is."""
        _, second = self._testbed.hosts
        self._testbed.restore_power(second)
        prove(not second.qemu_pids(), f"no guest came back on {second.name}")
        self._goes_on(self._server, self._count(self._server), boots=2)

    def end(self) -> None:
        """Delete the second server and the image."""
        if self._copy is not None:
            self._testbed.servers().delete(self._copy)
        if self._image is not None:
            self._testbed.servers().delete_image(self._image)

    def _count(self, server: Server) -> int:
        """The last number that the guest is known to have flushed."""
        so_far = console.read(self._testbed.console(server)).counter
        return self._testbed.wait_for_counter(
            server, so_far + 1, WRITE_SECONDS
        ).counter

    def _goes_on(self, server: Server, before: int, boots: int) -> None:
        after = self._testbed.wait_for_counter(
            server, before + 1, WRITE_SECONDS
        )
        print(f"    the guest counted {before} before, {after.counter} after")
        prove(not after.failed, "the guest has no write error")
        markers = after.markers
        prove(
            not markers or markers[-1]["boots"] == boots,
            f"the guest has come up {boots} time(s)",
        )
