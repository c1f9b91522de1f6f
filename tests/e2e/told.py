# SPDX-License-Identifier: Apache-2.0

"""Report what each nova-compute was doing when a test failed.

The report has the end of its log, which is removed with the testbed.
"""

import pathlib
import signal
import time

from tests.testbed.openstack.compute import Compute
from tests.testbed.whole import Testbed

_LINES = 60
_REPORT_LINES = 400
_REPORT_SECONDS = 2
# On this signal Nova writes the stacks of all its threads to its log
# (oslo.reports).
_REPORT_SIGNAL = signal.SIGUSR2
_REPORT_BEGIN = "Guru Meditation"


def of_computes(stack: Testbed) -> list[tuple[str, str]]:
    """Return a title and a text for each compute host."""
    return [
        (f"nova-compute of {host.name}", _of(stack.compute(host)))
        for host in stack.hosts
    ]


def _of(compute: Compute) -> str:
    if not compute.log.exists():
        return "It was never started."
    before = compute.log.read_text(errors="replace").splitlines()
    said = [line for line in before if " DEBUG " not in line][-_LINES:]
    pid = compute.process.pid()
    if pid is None:
        return "\n".join([*said, "It is not running."])
    if not _catches_signal(pid):
        return "\n".join([*said, "It has just been started."])
    compute.process.signal(_REPORT_SIGNAL)
    time.sleep(_REPORT_SECONDS)
    after = compute.log.read_text(errors="replace").splitlines()[len(before) :]
    begins = [n for n, line in enumerate(after) if _REPORT_BEGIN in line]
    if not begins:
        return "\n".join([*said, "It runs but does not answer SIGUSR2."])
    return "\n".join([*said, *after[begins[0] :][:_REPORT_LINES]])


def _catches_signal(pid: int) -> bool:
    """Whether the signal would not end the process, as it would by default."""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught >> (_REPORT_SIGNAL - 1) & 1)
