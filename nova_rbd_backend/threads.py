# SPDX-License-Identifier: Apache-2.0

"""Run work in native threads, with eventlet or without.

Nova 26 to 33 may run on eventlet, 33 and later on native threads, where
importing eventlet raises. So eventlet is only looked up in sys.modules. A
greenlet that waits inside librados would stop the whole process, so whole
operations go to eventlet's pool of native threads.
"""

import atexit
import importlib
import os
import sys
import time
import types
from collections.abc import Callable
from typing import Any, TypeVar, cast

T = TypeVar("T")

# eventlet's tpool has 20 threads. Long jobs must not take them all, and jobs
# that copy for hours must leave threads for jobs that wait for a client.
LONG_JOBS = 8
WAITING_JOBS = 6


def _patched_eventlet() -> types.ModuleType | None:
    """Return eventlet if it has replaced this process's threads, or None."""
    patcher = sys.modules.get("eventlet.patcher")
    if patcher is None or not patcher.is_monkey_patched("thread"):
        return None
    return sys.modules["eventlet"]


def _original(name: str) -> types.ModuleType:
    """Return a standard module as it was before eventlet changed it."""
    if _patched_eventlet() is not None:
        return cast(
            types.ModuleType, sys.modules["eventlet.patcher"].original(name)
        )
    return importlib.import_module(name)


def original_threading() -> Any:
    """Return the threading module for native threads."""
    return _original("threading")


def start_native(func: Callable[[], object]) -> None:
    """Run func in a native daemon thread, also from a garbage collection."""
    _original("_thread").start_new_thread(func, ())


def native_sleep(seconds: float) -> None:
    """Sleep this native thread, never a greenlet's hub."""
    _original("time").sleep(seconds)


def within(seconds: float, func: Callable[[], T]) -> T:
    """Run func in a native thread, and return what it returns.

    Blocks. func runs on in its thread if it does not end in time.

    :param seconds: 0: without a limit, in this thread
    :raises TimeoutError: func has not ended in time
    """
    if not seconds:
        return func()
    ended = original_threading().Event()
    results: list[T] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            results.append(func())
        except BaseException as error:
            failed.append(error)
        finally:
            ended.set()

    start_native(work)
    if not ended.wait(seconds):
        raise TimeoutError(f"no answer within {seconds} s")
    if failed:
        # Popped: no frame of the error's traceback may refer to the error.
        raise failed.pop()
    return results[0]


class _Here:
    """The threads of this process, all made on first use.

    :ivar slots: semaphores of greenlets, by whether their jobs wait
    :ivar native_idents: our native threads, in which no greenlet hub runs
    :ivar workers: the one _Background, in a dict because setdefault is atomic
    """

    def __init__(self) -> None:
        self.slots: dict[bool, Any] = {}
        self.native_idents: set[int] = set()
        self.workers: dict[str, _Background] = {}

    def after_fork(self) -> None:
        """Forget the parent's threads in the child."""
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

    Blocks the calling greenlet or thread. With native threads this is a plain
    call.

    :param long: the job takes seconds or more; LONG_JOBS run at a time
    :param waits: the job copies nothing, but may wait for another client, like
        a delete; WAITING_JOBS run at a time, beside the long ones
    """
    ident = original_threading().get_ident()
    if _patched_eventlet() is None or ident in _HERE.native_idents:
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


class _Background:
    """Native daemon threads, one for each job.

    A job may go on for as long as the process does, like a retry of what
    cannot be done, and must not keep another from running.
    """

    def __init__(self) -> None:
        self._threading = original_threading()
        self._lock = self._threading.Lock()
        self._threads: set[Any] = set()
        self._registered = False
        self._stopping = False

    def add(self, job: Callable[[], object]) -> None:
        thread = self._threading.Thread(
            target=self._work,
            args=(job,),
            name="nova-rbd-background",
            daemon=True,
        )
        with self._lock:
            if self._stopping:
                return
            if not self._registered:
                atexit.register(self.stop, 20)
                self._registered = True
            thread.start()
            self._threads.add(thread)

    def _work(self, job: Callable[[], object]) -> None:
        ident = self._threading.get_ident()
        _HERE.native_idents.add(ident)
        try:
            job()
        except Exception:
            sys.excepthook(*sys.exc_info())
        finally:
            _HERE.native_idents.discard(ident)
            with self._lock:
                self._threads.discard(self._threading.current_thread())

    def stop(self, limit_seconds: float) -> None:
        """Let running jobs end: librados crashes if it ends under a thread.

        :param limit_seconds: for all jobs together
        """
        end = time.monotonic() + limit_seconds
        with self._lock:
            self._stopping = True
            left = list(self._threads)
        for thread in left:
            thread.join(max(0.0, end - time.monotonic()))


def background(func: Callable[..., object], *args: Any) -> None:
    """Run func in a native daemon thread of its own; return at once.

    func handles its own errors; others go to sys.excepthook.
    """
    workers = _HERE.workers.setdefault("background", _Background())
    workers.add(lambda: func(*args))


def spawn(func: Callable[[], object]) -> None:
    """Run func beside the caller, where it may log; return at once.

    It runs in a greenlet under eventlet, because no native thread may touch
    the logging locks that eventlet has patched, else in :func:`background`.
    """
    eventlet = _patched_eventlet()
    if eventlet is None:
        background(func)
    else:
        eventlet.spawn_n(func)
