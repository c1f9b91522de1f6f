# SPDX-License-Identifier: Apache-2.0

"""Report what Ceph and each nova-compute were doing when a test failed.

The report has the end of their logs, which are removed with the testbed.
"""

import itertools
import pathlib
import signal
import time

from tests.support import ceph_report
from tests.testbed.openstack.compute import Compute
from tests.testbed.whole import Testbed

_LINES = 60
_REPORT_LINES = 400
_REPORT_SECONDS = 2
# On this signal Nova writes the stacks of all its threads to its log
# (oslo.reports).
_REPORT_SIGNAL = signal.SIGUSR2
_REPORT_BEGIN = "Guru Meditation"
# The heading of what follows on the threads: processes and all options.
_REPORT_END = "Processes"


def of_all(stack: Testbed) -> list[tuple[str, str]]:
    """Return titles and texts of Ceph and of each compute host."""
    return [
        ("Ceph", ceph_report.of_ceph(stack.cluster)),
        *of_computes(stack),
    ]


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
    report = after[begins[0] :]
    threads = itertools.takewhile(lambda line: not _is_end(line), report)
    return "\n".join([*said, *list(threads)[:_REPORT_LINES]])


def _is_end(line: str) -> bool:
    return line.startswith("====") and _REPORT_END in line


def _catches_signal(pid: int) -> bool:
    """Whether the signal would not end the process, as it would by default."""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught >> (_REPORT_SIGNAL - 1) & 1)
