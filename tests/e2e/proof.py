# SPDX-License-Identifier: Apache-2.0

"""What a guest had flushed is there: its counter, before and after a change.

The guest (tests/testbed/guest/parts/init) flushes each number before it
announces it, and reads the disk for numbers that are missing when it boots.
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
# A second a step is usual; 30 s, with eight times the work for the cores.
WRITE_SECONDS = 60

#: How often a server's guest was started again because QEMU had broken it.
started_again: collections.Counter[str] = collections.Counter()


@contextlib.contextmanager
def explained(stack: Testbed, server: Server) -> Iterator[None]:
    """Add what there is to be seen to a wait for a guest that was in vain."""
    try:
        yield
    except TestbedError as error:
        seen = standstill.report(stack, server)
        raise AssertionError(f"{error}\n{seen}") from None


def written(stack: Testbed, server: Server) -> int:
    """The last number known to be safe, after some more were written."""
    so_far = console_.read(stack.console(server)).counter
    return _come_to(stack, server, so_far + STEP, so_far)


def went_on(stack: Testbed, server: Server, safe: int) -> int:
    """The guest writes on where it was, with no fault: its counter."""
    return _come_to(stack, server, safe + 1, safe)


def kept(
    stack: Testbed, server: Server, safe: int, boots: int
) -> dict[str, Any]:
    """The guest came up with all it had written: its marker.

    :param boots: how often it has now come up, as its root disk tells, but
        for what went_on has started again
    """
    with explained(stack, server):
        marker = dict(stack.wait_for_guest(server).markers[-1])
    assert marker["boots"] == boots + started_again[server.id]
    assert marker["counter"] >= safe
    assert marker["missing"] == 0
    went_on(stack, server, marker["counter"])
    return marker


def _come_to(stack: Testbed, server: Server, at_least: int, safe: int) -> int:
    """The guest's counter, once it has come so far with no fault.

    A guest that QEMU has broken in a live migration, with its disk well, is
    started again: what it had flushed is to be there.
    """
    try:
        with explained(stack, server):
            console = stack.wait_for_counter(server, at_least, WRITE_SECONDS)
    except AssertionError:
        failed = console_.read(stack.console(server)).failed
        if failed or not standstill.is_qemus_fault(stack, server):
            raise
        return _start_again(stack, server, safe)
    assert not console.failed
    return console.counter


def _start_again(stack: Testbed, server: Server, safe: int) -> int:
    stack.openstack.connection().compute.reboot_server(server.id, "HARD")
    stack.servers().wait(server)
    started_again[server.id] += 1
    with explained(stack, server):
        marker = stack.wait_for_guest(server).markers[-1]
    assert marker["counter"] >= safe
    assert marker["missing"] == 0
    return went_on(stack, server, int(marker["counter"]))


class Watch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._begin = time.monotonic()

    def __str__(self) -> str:
        return f"{time.monotonic() - self._begin:.1f} s"
