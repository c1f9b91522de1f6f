# SPDX-License-Identifier: Apache-2.0

"""A nova-compute under eventlet, and how long its event loop stands still."""

import time
from typing import Any

from benchmarks.nova_side import NovaSide

TICK_SECONDS = 0.005


class GreenSide(NovaSide):
    """NovaSide, monkey-patched before it is made."""

    def watched(self, work: str, **arguments: Any) -> dict[str, float]:
        """Do the work in one greenlet, and measure the stalls of another.

        The other greenlet wants to run at each tick. It stands for all else
        that a nova-compute has to do, such as its requests and its heartbeat.
        """
        import eventlet

        gaps: list[float] = []
        done: list[bool] = []

        def tick() -> None:
            last = time.monotonic()
            while not done:
                eventlet.sleep(TICK_SECONDS)
                now = time.monotonic()
                gaps.append(now - last - TICK_SECONDS)
                last = now

        ticker = eventlet.spawn(tick)
        eventlet.sleep(0)
        begin = time.monotonic()
        eventlet.spawn(getattr(self, work), **arguments).wait()
        # Let the other greenlet run once more, so that a stall at the end of
        # the work counts too.
        eventlet.sleep(0)
        done.append(True)
        ticker.wait()
        return {
            "stall_ms": max(gaps) * 1000,
            "ms": (time.monotonic() - begin) * 1000,
        }

    def idle(self, seconds: float) -> None:
        """Do nothing for this many seconds."""
        time.sleep(seconds)
