# SPDX-License-Identifier: Apache-2.0

"""Find a free port for a monitor."""

import socket

from tests.testbed.process import TestbedError

# Below the kernel's range for outgoing connections (32768 and up), away from
# the OSDs' own search (6800 to 7300) and the monitor's well-known 3300.
PORTS = range(13300, 14300, 2)


def free_pair(address: str, seed: int) -> int:
    """Return a port that is free, as is the next one.

    :param seed: where in the range to begin; clusters differ in it, because a
        stopped cluster's port looks free but should not be taken
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for offset in range(len(PORTS)):
        port = PORTS[(seed + offset) % len(PORTS)]
        if all(_free(family, address, p) for p in (port, port + 1)):
            return port
    raise TestbedError(f"no free port for a monitor on {address} in {PORTS}")


def _free(family: int, address: str, port: int) -> bool:
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True
