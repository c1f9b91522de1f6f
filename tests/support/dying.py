# SPDX-License-Identifier: Apache-2.0

"""Processes that kill themselves at a given step, for each step in turn.

A child process hooks the methods that change something. Its parent runs it
with the numbers 1, 2, 3 and so on until the child survives to its end.

A nova-compute that dies imports this module before it reads its options, so
only the standard library is imported at module level.
"""

import concurrent.futures
import contextlib
import functools
import mmap
import os
import pathlib
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

#: Classes or modules, and the names of the methods to hook in each.
Table = Mapping[Any, tuple[str, ...]]
#: Called at each step, with the name of the method.
Step = Callable[[str], object]


def librbd_calls() -> Table:
    """Return the methods that have librbd change something."""
    from nova_rbd_backend.ceph import image, pool
    from nova_rbd_backend.ceph.trash import Trash

    return {
        pool.Pool: ("create", "clone", "rename", "remove"),
        Trash: ("move", "remove", "restore"),
        image.Image: (
            *("resize", "shrink", "flatten", "rollback"),
            *("set_conf", "set_metadata"),
            *("create_snap", "protect_snap", "remove_snap"),
            "enable_exclusive_lock",
        ),
    }


def changes() -> Table:
    """Return the methods that make one change each to the cluster.

    These are the methods that call Ceph themselves. Methods that pass the
    call on are left out, so that each step counts once.
    """
    from nova_rbd_backend.ceph import cluster, trash
    from nova_rbd_backend.ceph.directory import Directory
    from nova_rbd_backend.ceph.headers import Headers
    from nova_rbd_backend.ceph.holders import Holders
    from nova_rbd_backend.ceph.objects import Objects

    found = librbd_calls()
    return {
        **found,
        trash.Trash: (*found[trash.Trash], "_end_move"),
        cluster.Cluster: ("blocklist",),
        Directory: (
            *("_rename_listed", "_give_back", "remove_listed"),
            *("set_id", "remove_id"),
        ),
        Headers: ("set_metadata",),
        Holders: ("break_lock",),
        Objects: ("omap_swap", "lease", "end_lease"),
    }


def writes() -> Table:
    """Return the methods that change an image's bytes.

    A flow has as many of these steps as the image has objects, except that
    qemu-img writes an image in one step.
    """
    from nova_rbd_backend.ceph import image, qemu_img

    return {image.Image: ("write", "zero", "flush"), qemu_img: ("copy",)}


def surround(
    around: Callable[[str], contextlib.AbstractContextManager[object]],
    *tables: Table,
) -> None:
    """Have these methods run inside ``around``, called with their name.

    The methods stay hooked for the life of the process.
    """

    def hooked(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with around(method.__name__):
                return method(*args, **kwargs)

        return wrapper

    for table in tables:
        for owner, methods in table.items():
            for name in methods:
                setattr(owner, name, hooked(getattr(owner, name)))


def hook(
    step: Step, *tables: Table, before: bool = False, after: bool = False
) -> None:
    """Call ``step`` before each call of these methods, after it, or both.

    A call that raises has no step after it.
    """

    @contextlib.contextmanager
    def around(name: str) -> Iterator[None]:
        if before:
            step(name)
        yield
        if after:
            step(name)

    surround(around, *tables)


def _native_lock() -> Any:
    """Return a lock for native threads, also if eventlet has patched them."""
    from nova_rbd_backend import threads

    return threads.original_threading().Lock()


class CallTimer:
    """Kills this process in its n-th call of a method, some time after entry.

    The file says in which call it has died.

    :param number: of the call, from 0; -1 for never
    :param seconds: from the begin of the call
    :param path: a file for :meth:`died_in`
    :ivar seconds_of_calls: how long each call has taken
    """

    _BYTES = 32

    def __init__(self, number: int, seconds: float, path: pathlib.Path):
        self._number = number
        self._seconds = seconds
        path.write_bytes(bytes(self._BYTES))
        with path.open("r+b") as file:
            self._shown = mmap.mmap(file.fileno(), self._BYTES)
        self._lock = _native_lock()
        self._count = 0
        self.seconds_of_calls: list[float] = []

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        with self._lock:
            number = self._count
            self._count += 1
        if number == self._number:
            self._show(name)
            # The default action of SIGALRM ends the process in the kernel, as
            # SIGKILL does. A timer is exact, however busy the machine is.
            signal.setitimer(signal.ITIMER_REAL, self._seconds)
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds_of_calls.append(time.monotonic() - began)
            if number == self._number:
                self._show("")

    def _show(self, name: str) -> None:
        self._shown[:] = name.encode().ljust(self._BYTES, b"\0")

    @staticmethod
    def died_in(path: pathlib.Path) -> str:
        """Return the call in which the process died; "": in none."""
        return path.read_bytes().rstrip(b"\0").decode()


class Countdown:
    """Kills this process at its n-th step.

    :param number: the step to die at; 0 for never
    :param say: called with a line of text before the process dies
    """

    def __init__(
        self, number: int, say: Callable[[str], object] | None = None
    ):
        self._number = number
        self._say = say
        self._count = 0
        self._lock = _native_lock()

    def __call__(self, name: str) -> None:
        with self._lock:
            self._count += 1
            if self._count == self._number:
                if self._say is not None:
                    self._say(f"killed at step {self._count}: {name}")
                _die()


class CountdownFile:
    """Kills this process after as many steps as a file says.

    Each step lowers the number in the file by 1, and the process dies at the
    step that would lower it to 0. It removes the file just before that.
    Nothing happens while there is no file, or no number in it.
    """

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._lock = _native_lock()

    def __call__(self, name: str) -> None:
        with self._lock:
            try:
                left = int(self._path.read_text()) - 1
            except (FileNotFoundError, ValueError):
                return
            if left < 1:
                self._path.unlink()
                _die()
            self._path.write_text(str(left))


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed(done: subprocess.CompletedProcess[str]) -> bool:
    """Return whether a process killed itself, rather than run to its end.

    Fails the test if the process ended in any other way.
    """
    if done.returncode == 0:
        return False
    assert done.returncode == -signal.SIGKILL, done.stderr
    return True


def deaths(
    work: Callable[[int], bool],
    at_least: int,
    at_most: int = 80,
    at_once: int = 1,
) -> int:
    """Have the work die at each step in turn; return how many steps it has.

    :param work: called with the number of a step; returns whether the process
        died at it. The step after the last one survives.
    :param at_least: number of steps; fewer show that no method was hooked
    :param at_most: number of steps; no work has more
    :param at_once: number of threads that call ``work``, each with a step of
        its own
    """
    numbers = iter(range(1, at_most + 2))
    survived: list[int] = []
    failed: list[BaseException] = []
    lock = threading.Lock()

    def next_step() -> int | None:
        with lock:
            ended = survived or failed
            return None if ended else next(numbers, None)

    def lane() -> None:
        while (step := next_step()) is not None:
            try:
                if not work(step):
                    survived.append(step)
            except BaseException as error:
                failed.append(error)
                raise

    # This thread has a lane too, as only this one notices a Ctrl-C.
    with concurrent.futures.ThreadPoolExecutor(at_once) as threads:
        lanes = [threads.submit(lane) for _ in range(at_once - 1)]
        lane()
    for each in lanes:
        each.result()
    assert survived, f"there are more than {at_most} steps"
    steps = min(survived) - 1
    assert steps >= at_least, "the steps were not hooked"
    return steps
