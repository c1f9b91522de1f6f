# SPDX-License-Identifier: Apache-2.0

"""Choose free loopback ports once, and remember them in a file."""

import json
import pathlib
import random
import socket
from collections.abc import Iterable, Mapping

from tests.testbed.process import TestbedError

# Below Linux's ephemeral range (32768), so that no client socket takes a port
# while its daemon is down. Ceph's ports and those for live migration are below
# this range.
RANGE = range(22000, 32000)


def remembered(path: pathlib.Path, names: Iterable[str]) -> Mapping[str, int]:
    """Read each name's port from the file ``path``; choose missing ones."""
    known = dict(json.loads(path.read_text())) if path.exists() else {}
    missing = [name for name in names if name not in known]
    if not missing:
        return known
    # Testbeds that are made at the same moment must not take the same ports.
    candidates = random.sample(RANGE, 500)
    chosen = known | {name: _next_free(candidates) for name in missing}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(chosen, indent=1))
    return chosen


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
