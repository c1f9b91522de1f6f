# SPDX-License-Identifier: Apache-2.0

"""Choose free loopback ports once, and remember them in a file."""

import contextlib
import errno
import json
import pathlib
import random
import socket
from collections.abc import Iterable, Iterator, Mapping

from tests.testbed.process import TestbedError, wait_for

# Below Linux's ephemeral range (32768), so that no client socket takes a port
# while its daemon is down. Ceph's ports and those for live migration are below
# this range.
RANGE = range(22000, 32000)


def remembered(
    path: pathlib.Path, names: Iterable[str], others: Iterable[pathlib.Path]
) -> Mapping[str, int]:
    """Read each name's port from the file ``path``; choose missing ones.

    :param others: such files of other testbeds, whose ports are not taken:
        they look free until their daemons have started, and while they are
        down
    """
    known = _read(path)
    missing = [name for name in names if name not in known]
    if not missing:
        return known
    with choice():
        taken = {port for other in others for port in _read(other).values()}
        candidates = [port for port in RANGE if port not in taken]
        random.shuffle(candidates)
        chosen = known | {name: _next_free(candidates) for name in missing}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(chosen, indent=1))
    return chosen


@contextlib.contextmanager
def choice() -> Iterator[None]:
    """Let one process at a time choose a port.

    An abstract socket is the lock: it has the ports' scope (the network
    namespace), ends with its process and leaves no file behind.
    """
    with socket.socket(socket.AF_UNIX) as lock:
        wait_for("another testbed has its ports", lambda: _bound(lock), 60)
        yield


def _bound(lock: socket.socket) -> bool:
    try:
        lock.bind("\0nova-rbd-backend-testbed-ports")
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return False
    return True


def _read(path: pathlib.Path) -> dict[str, int]:
    """Return a file's ports by name; none if it is not there (any more)."""
    try:
        return dict(json.loads(path.read_text()))
    except FileNotFoundError:
        return {}


def _next_free(candidates: list[int]) -> int:
    while candidates:
        port = candidates.pop()
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise TestbedError(f"no free port in {RANGE} on 127.0.0.1")


def listening(port: int) -> bool:
    """Whether something accepts connections on this loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
