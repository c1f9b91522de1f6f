# SPDX-License-Identifier: Apache-2.0

"""The one place that tells eventlet from native threads.

Nova 26 to 33 may run on eventlet, 33 and later on native threads, where
importing eventlet raises. So eventlet is only looked up in sys.modules.
A greenlet that waits inside librados would stop the whole process: calls
go to eventlet's pool of native threads as whole operations.
"""

import atexit
import importlib
import os
import sys
import types
from collections.abc import Callable
from typing import Any, TypeVar, cast

T = TypeVar("T")

# eventlet's tpool has 20 threads. Long jobs may not take them all, and jobs
# that copy for hours may take none of those for jobs that wait for a client.
LONG_JOBS = 8
WAITING_JOBS = 6
BACKGROUND_WORKERS = 2


def _patched_eventlet() -> types.ModuleType | None:
    """Eventlet, if this process has replaced its threads with greenlets."""
    eventlet = sys.modules.get("eventlet")
    patcher = sys.modules.get("eventlet.patcher")
    if eventlet is None or patcher is None:
        return None
    return eventlet if patcher.is_monkey_patched("thread") else None


def _original(name: str) -> types.ModuleType:
    """A standard module as it was before eventlet changed it."""
    if _patched_eventlet() is not None:
        return cast(
            types.ModuleType, sys.modules["eventlet.patcher"].original(name)
        )
    return importlib.import_module(name)


def original_threading() -> Any:
    """The threading module of native threads."""
    return _original("threading")


def original_queue() -> Any:
    """The queue module whose locks block native threads."""
    return _original("queue")


def native_sleep(seconds: float) -> None:
    """Sleep this native thread, never a greenlet's hub."""
    _original("time").sleep(seconds)


class _Here:
    """What this process has of threads, all made on first use.

    :ivar slots: on the greenlets' side, by whether their jobs wait
    :ivar native_idents: threads of ours in which there is no hub to go back to
    :ivar workers: one, under a name: setdefault is atomic
    """

    def __init__(self) -> None:
        self.slots: dict[bool, Any] = {}
        self.native_idents: set[int] = set()
        self.workers: dict[str, _Background] = {}

    def after_fork(self) -> None:
        """In the child: the threads are the parent's."""
        self.workers.clear()
        self.native_idents.clear()


_HERE = _Here()
os.register_at_fork(after_in_child=_HERE.after_fork)


def run(
    func: Callable[..., T],
    *args: Any,
    long: bool = False,
    waits: bool = False,
    **kwargs: Any,
) -> T:
    """Run func off the event loop and return what it returns.

    Blocks the calling greenlet or thread. With native threads it is a plain
    call.

    :param long: the job takes seconds or more; LONG_JOBS run at a time
    :param waits: the job copies nothing, but may wait for another client, as
        a delete does; WAITING_JOBS run at a time, beside the long ones
    """
    eventlet = _patched_eventlet()
    if eventlet is None or _is_background():
        return func(*args, **kwargs)
    tpool = importlib.import_module("eventlet.tpool")
    if not (long or waits):
        return cast(T, tpool.execute(func, *args, **kwargs))
    if waits not in _HERE.slots:
        semaphore = importlib.import_module("eventlet.semaphore")
        count = WAITING_JOBS if waits else LONG_JOBS
        _HERE.slots[waits] = semaphore.BoundedSemaphore(count)
    with _HERE.slots[waits]:
        return cast(T, tpool.execute(func, *args, **kwargs))


def _is_background() -> bool:
    return original_threading().get_ident() in _HERE.native_idents


class _Background:
    """A few native daemon threads that work off one queue."""

    def __init__(self) -> None:
        self._threading = original_threading()
        self._queue = original_queue().Queue()
        self._lock = self._threading.Lock()
        self._threads: list[Any] = []
        self._stopping = False

    def add(self, job: Callable[[], object]) -> None:
        with self._lock:
            if len(self._threads) < BACKGROUND_WORKERS:
                thread = self._threading.Thread(
                    target=self._work, name="nova-rbd-background", daemon=True
                )
                if not self._threads:
                    atexit.register(self.stop, 10)
                self._threads.append(thread)
                thread.start()
        self._queue.put(job)

    def _work(self) -> None:
        _HERE.native_idents.add(self._threading.get_ident())
        while (job := self._queue.get()) is not None:
            if self._stopping:
                continue
            try:
                job()
            except Exception:
                sys.excepthook(*sys.exc_info())

    def stop(self, limit_seconds: float) -> None:
        """Let jobs under way end: librados dies badly under a thread."""
        self._stopping = True
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join(limit_seconds)


def background(func: Callable[..., object], *args: Any) -> None:
    """Run func soon in a native daemon thread; returns at once.

    BACKGROUND_WORKERS run at a time, others wait. func handles its own errors:
    what it raises goes to sys.excepthook. At exit, jobs that have not begun
    are dropped.
    """
    workers = _HERE.workers.setdefault("background", _Background())
    workers.add(lambda: func(*args))


def spawn(func: Callable[[], object]) -> None:
    """Run func beside the caller, where it may log; returns at once.

    A greenlet under eventlet, whose patched logging locks no native thread
    may touch; else a thread of :func:`background`.
    """
    eventlet = _patched_eventlet()
    if eventlet is None:
        background(func)
    else:
        eventlet.spawn_n(func)
