# SPDX-License-Identifier: Apache-2.0

"""Run nova-compute on eventlet, and log what could stop its hub.

All greenlets of a process share one native thread, that of the hub. One that
waits there in any other way than eventlet's stops all others: RPC, reports to
Nova, timers. So this logs when the hub stands still, and whenever that thread
calls Ceph, quick as the answer may be today. Other native threads must not use
the locks that eventlet has patched: it is logged when one of ours logs.

Usage: python hub_watch.py <nova-compute's command line>
"""

import logging
import os
import signal
import sys
import time
import traceback
from typing import Any

# Shorter standstills are normal: greenlets share a CPU as well.
LIMIT_SECONDS = 0.5
TICK_SECONDS = 0.05
STOOD_STILL = "HUB STOOD STILL"
CALLED_CEPH = "HUB CALLED CEPH"
LOGGED = "LOGGED IN A NATIVE THREAD"


class Watch:
    """A greenlet that ticks, and a native thread that expects it to.

    It must be made in the hub's thread, after eventlet has patched Python.
    """

    def __init__(self) -> None:
        from eventlet import patcher

        self._sleep = patcher.original("time").sleep
        self._native = patcher.original("_thread")
        self._hub = self._native.get_ident()
        # Nanoseconds on a CPU, and of waiting for one (Linux,
        # Documentation/scheduler/sched-stats.rst).
        thread = self._native.get_native_id()
        self._schedstat = f"/proc/self/task/{thread}/schedstat"
        self._ticked = self._now()
        self._continued = 0.0

    def start(self) -> None:
        """Watch as long as the process runs."""
        import eventlet

        self._watch_ceph()
        self._watch_logs()
        signal.signal(signal.SIGCONT, self._note_continued)
        eventlet.spawn_n(self._tick)
        self._native.start_new_thread(self._watch, ())

    def _watch_ceph(self) -> None:
        from nova_rbd_backend.ceph import error_map

        # Each call of Ceph is made within this context.
        translated = error_map.translated

        def watched(operation: str, *args: Any, **target: Any) -> Any:
            if self._native.get_ident() == self._hub:
                stack = "".join(traceback.format_stack())
                _log(f"{CALLED_CEPH}: {operation} {target} at\n{stack}")
            return translated(operation, *args, **target)

        error_map.translated = watched

    def _watch_logs(self) -> None:
        handle = logging.Logger.handle

        def watched(logger: logging.Logger, record: logging.LogRecord) -> None:
            ours = record.name.startswith("nova_rbd_backend")
            if ours and self._native.get_ident() != self._hub:
                stack = "".join(traceback.format_stack())
                _log(f"{LOGGED}: {record.msg} at\n{stack}")
            handle(logger, record)

        setattr(logging.Logger, "handle", watched)  # noqa: B010

    def _note_continued(self, *_: object) -> None:
        # Python calls it in the hub's thread, before the next tick.
        self._continued = time.monotonic()

    def _now(self) -> tuple[float, float]:
        """The time, and how much of it the hub's thread could have used.

        It has used that time, or another thread has had the CPU.
        """
        with open(self._schedstat) as file:
            on_cpu, queued, _ = map(int, file.read().split())
        return time.monotonic(), (on_cpu + queued) / 1e9

    def _tick(self) -> None:
        import eventlet

        while True:
            self._ticked = self._now()
            eventlet.sleep(TICK_SECONDS)

    def _watch(self) -> None:
        while True:
            self._sleep(TICK_SECONDS)
            began = self._ticked
            if time.monotonic() - began[0] > LIMIT_SECONDS:
                self._tell(began)

    def _tell(self, began: tuple[float, float]) -> None:
        """Log the standstill that has begun at that time, once it is over.

        But not if the whole process has been stopped by a signal.
        """
        stack = "".join(traceback.format_stack(self._frame()))
        while self._ticked == began:
            self._sleep(TICK_SECONDS)
        if self._continued > began[0]:
            return
        seconds, runnable = (
            end - begin for end, begin in zip(self._ticked, began, strict=True)
        )
        _log(
            f"{STOOD_STILL} for {seconds:.2f} s and waited "
            f"{seconds - runnable:.2f} s of it at\n{stack}"
        )

    def _frame(self) -> Any:
        return sys._current_frames()[self._hub]


def _log(text: str) -> None:
    # A native thread must not touch what eventlet has patched. The lines are
    # indented, so that what follows in the log is told from them.
    os.write(2, text.encode())


def main() -> None:
    """Run nova-compute, which must have chosen eventlet."""
    from nova.cmd import compute

    Watch().start()
    del sys.argv[0]
    sys.exit(compute.main())


if __name__ == "__main__":
    main()
