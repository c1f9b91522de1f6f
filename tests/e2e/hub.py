# SPDX-License-Identifier: Apache-2.0

"""What could have stopped eventlet's hub in each nova-compute.

See hub_watch, which logs it. A hub that computes, or that cannot run because
the machine is busy, has not waited.
"""

import re
from collections.abc import Iterator

from tests.testbed.openstack.hub_watch import CALLED_CEPH, LOGGED, STOOD_STILL
from tests.testbed.whole import Testbed

LIMIT_SECONDS = 1.0
_STACK = r"(?:  .*\n)*"
_STANDSTILL = re.compile(
    rf"{STOOD_STILL} for \S+ s and waited (\S+) s of it at\n{_STACK}"
)
_CALL = re.compile(rf"(?:{CALLED_CEPH}|{LOGGED}).*\n{_STACK}")


class Hubs:
    """The hubs of all nova-computes, from now on."""

    def __init__(self, testbed: Testbed):
        self._logs = [testbed.compute(host).log for host in testbed.hosts]
        self._begin = [
            log.stat().st_size if log.exists() else 0 for log in self._logs
        ]

    def faults(self) -> list[str]:
        """Each with the name of its log, and with the stack."""
        return [
            f"{log.name}: {fault}"
            for log, begin in zip(self._logs, self._begin, strict=True)
            if log.exists()
            for fault in faults(log.read_bytes()[begin:].decode())
        ]


def faults(log: str) -> Iterator[str]:
    """What a nova-compute's log tells of its hub."""
    for found in _CALL.finditer(log):
        yield found[0]
    for found in _STANDSTILL.finditer(log):
        if float(found[1]) > LIMIT_SECONDS:
            yield found[0]
