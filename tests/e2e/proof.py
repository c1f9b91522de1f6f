# SPDX-License-Identifier: Apache-2.0

"""Prove by a guest's counter that a change has lost no flushed write.

The guest (tests/testbed/guest/parts/init.c) flushes each number before it
announces it. When it boots, it counts the numbers that its disk lacks.
"""

import collections
import contextlib
import time
from collections.abc import Iterator
from typing import Any

from openstack.compute.v2.server import Server

from tests.e2e import standstill
from tests.testbed.guest import console as console_
from tests.testbed.process import TestbedError
from tests.testbed.whole import Testbed

# Numbers between two announcements.
STEP = 20
# A step usually takes a second; it took 30 s when the cores had eight times
# the work.
WRITE_SECONDS = 60

# QEMU broke the guest in 4 of 116 live migrations (see standstill), and a run
# has about 20. More broken guests than these must have another cause. One of
# them is the guest that test_standstill breaks.
MOST_BROKEN = 4

#: How often a guest was started again because QEMU had broken it, by the id
#: of its server.
started_again: collections.Counter[str] = collections.Counter()


@contextlib.contextmanager
def explained(stack: Testbed, server: Server) -> Iterator[None]:
    """Add a report on the server to the error when a wait times out."""
    try:
        yield
    except TestbedError as error:
        seen = standstill.report(stack, server)
        raise AssertionError(f"{error}\n{seen}") from None


def written(stack: Testbed, server: Server) -> int:
    """Let the guest write some more; return the last number that is safe."""
    so_far = console_.read(stack.console(server)).counter
    return _come_to(stack, server, so_far + STEP, so_far)


def went_on(stack: Testbed, server: Server, safe: int) -> int:
    """Assert that the guest goes on writing, with no fault; its counter."""
    return _come_to(stack, server, safe + 1, safe)


def kept(
    stack: Testbed, server: Server, safe: int, boots: int
) -> dict[str, Any]:
    """Assert that the guest came up with all it had written; its marker.

    :param boots: how often the guest must have come up by now, as its root
        disk counts, without the starts in :data:`started_again`
    """
    with explained(stack, server):
        marker = dict(stack.wait_for_guest(server).markers[-1])
    counted = boots + started_again[server.id]
    assert marker["boots"] == counted, (
        f"{marker}, not {counted} boots\n{standstill.report(stack, server)}"
    )
    assert marker["counter"] >= safe
    assert marker["missing"] == 0
    went_on(stack, server, marker["counter"])
    return marker


def _come_to(stack: Testbed, server: Server, at_least: int, safe: int) -> int:
    """Wait until the guest's counter has come so far, with no fault.

    A guest that QEMU has broken in a live migration, although its disk works,
    is started again, once; all that it had flushed must be on the disk.
    """
    try:
        with explained(stack, server):
            console = stack.wait_for_counter(server, at_least, WRITE_SECONDS)
    except AssertionError:
        failed = console_.read(stack.console(server)).failed
        if failed or not standstill.is_qemus_fault(stack, server):
            raise
        return start_again(stack, server, safe)
    assert not console.failed
    return console.counter


def start_again(stack: Testbed, server: Server, safe: int) -> int:
    """Start a guest that QEMU has broken; return its counter then.

    Fails if more guests are broken than QEMU breaks.
    """
    broken = started_again.total()
    assert broken < MOST_BROKEN, f"{broken} guests were broken before this one"
    stack.openstack.connection().compute.reboot_server(server.id, "HARD")
    stack.servers().wait(server)
    started_again[server.id] += 1
    with explained(stack, server):
        marker = stack.wait_for_guest(server).markers[-1]
    assert marker["counter"] >= safe
    assert marker["missing"] == 0
    with explained(stack, server):
        console = stack.wait_for_counter(
            server, int(marker["counter"]) + 1, WRITE_SECONDS
        )
    assert not console.failed
    return console.counter


class Watch:
    """A stopwatch, whose text is the seconds since it was made."""

    def __init__(self) -> None:
        self._begin = time.monotonic()

    def __str__(self) -> str:
        return f"{time.monotonic() - self._begin:.1f} s"
