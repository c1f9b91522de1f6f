# SPDX-License-Identifier: Apache-2.0

"""Processes that kill themselves at a given step, for each step in turn.

A child process hooks the methods that change something. Its parent runs it
with the numbers 1, 2, 3 and so on until the child survives to its end.

nova-compute imports this module before it loads anything else, so only the
standard library is imported at module level.
"""

import functools
import os
import pathlib
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

#: Classes or modules, and the names of the methods to hook in each.
Table = Mapping[Any, tuple[str, ...]]
#: Called at each step, with the name of the method.
Step = Callable[[str], object]


def changes() -> Table:
    """Return the methods that make one change each to the cluster.

    These are the methods that call Ceph themselves. Methods that pass the
    call on are left out, so that each step counts once.
    """
    from nova_rbd_backend.ceph import cluster, image, pool
    from nova_rbd_backend.ceph.directory import Directory
    from nova_rbd_backend.ceph.headers import Headers
    from nova_rbd_backend.ceph.holders import Holders
    from nova_rbd_backend.ceph.objects import Objects
    from nova_rbd_backend.ceph.trash import Trash

    return {
        cluster.Cluster: ("blocklist",),
        pool.Pool: ("create", "clone", "remove"),
        Directory: ("_rename_listed", "_set_id", "remove_id", "remove_listed"),
        Headers: ("set_metadata",),
        Holders: ("break_lock",),
        Objects: ("omap_swap", "lease", "end_lease"),
        Trash: ("move", "remove", "restore", "finish_move"),
        image.Image: (
            *("resize", "shrink", "set_conf", "flatten", "rollback"),
            *("create_snap", "protect_snap", "remove_snap"),
        ),
    }


def writes() -> Table:
    """Return the methods that change an image's bytes.

    A flow has as many of these steps as the image has objects.
    """
    from nova_rbd_backend.ceph import image

    return {image.Image: ("write", "zero", "flush")}


def hook(
    step: Step, *tables: Table, before: bool = False, after: bool = False
) -> None:
    """Call ``step`` before each call of these methods, after it, or both.

    The methods stay hooked for the life of the process.
    """

    def hooked(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if before:
                step(method.__name__)
            result = method(*args, **kwargs)
            if after:
                step(method.__name__)
            return result

        return wrapper

    for table in tables:
        for owner, methods in table.items():
            for name in methods:
                setattr(owner, name, hooked(getattr(owner, name)))


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
        self._lock = threading.Lock()

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
        self._lock = threading.Lock()

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
    work: Callable[[int], bool], at_least: int, at_most: int = 80
) -> Iterator[int]:
    """Have the work die at each step in turn, and yield each of these steps.

    :param work: called with the number of a step; returns whether the process
        died at it. The first call that returns False is the last one.
    :param at_least: number of steps; fewer show that no method was hooked
    :param at_most: number of steps; no work has as many
    """
    for step in range(1, at_most):
        if not work(step):
            assert step > at_least, "the steps were not hooked"
            return
        yield step
    raise AssertionError(f"there are more than {at_most} steps")
