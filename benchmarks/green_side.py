# SPDX-License-Identifier: Apache-2.0

"""A nova-compute under eventlet, and how long its event loop stands still."""

import time
from typing import Any

from benchmarks.nova_side import NovaSide

TICK_SECONDS = 0.005


class GreenSide(NovaSide):
    """NovaSide, monkey-patched before it is made."""

    def watched(self, work: str, **arguments: Any) -> dict[str, float]:
        """Do it in one greenlet; the longest wait of another, beyond a tick.

        The other one stands for all else that a nova-compute has to do: its
        requests, its heartbeat.
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
        # Ticks once more: what the work did last counts too.
        eventlet.sleep(0)
        done.append(True)
        ticker.wait()
        return {
            "stall_ms": max(gaps) * 1000,
            "ms": (time.monotonic() - begin) * 1000,
        }

    def idle(self, seconds: float) -> None:
        """Do nothing, for so long."""
        time.sleep(seconds)
