# SPDX-License-Identifier: Apache-2.0

"""Which process wrote an entry, and may it still live, as seen from here?"""

import contextlib
import dataclasses
import functools
import os
import socket

MACHINE_ID = "/etc/machine-id"


@dataclasses.dataclass(frozen=True)
class Process:
    """:ivar process: what, with host and pid, no other one has"""

    host: str
    pid: int
    process: str

    def __str__(self) -> str:
        return f"{self.host}/{self.pid}/{self.process}"

    @classmethod
    def parsed(cls, text: str) -> "Process":
        host, pid, process = text.split("/")
        return cls(host, int(pid), process)

    def may_live(self) -> bool:
        """Return whether it may be alive: an unseen process always may."""
        if self.host != socket.gethostname():
            return True
        machine, boot, namespace, started = self.process.split(".")
        if boot != _boot():
            # This machine before it was started again; or another one, of
            # another cloud or cell, that has the same name.
            return not machine or machine != _machine()
        if int(namespace) != _pid_namespace():
            return True
        return _started(self.pid) == started


def this_process() -> Process:
    """Return this very process."""
    return of_pid(os.getpid())


def of_pid(pid: int) -> Process:
    """Return a process of this host."""
    return Process(socket.gethostname(), pid, _identity(pid))


@functools.cache
def _identity(pid: int) -> str:
    """What, with host and pid, no later process has in common with this one.

    A pid alone comes again, in a container at each start. Two processes may
    well have begun in the same clock tick.
    """
    return f"{_machine()}.{_boot()}.{_pid_namespace()}.{_started(pid)}"


@functools.cache
def _machine() -> str:
    """The id of this installation (machine-id(5)); empty: it has none.

    Two clouds, or two cells, may each have a host of the same name.
    """
    with contextlib.suppress(FileNotFoundError), open(MACHINE_ID) as file:
        return file.read().strip()
    return ""


def _boot() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def _pid_namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


def _started(pid: int) -> str:
    """Clock ticks from the machine's boot; empty: no such process."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            facts = file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    # A zombie is only waited for by its parent (proc(5): state, starttime).
    return "" if facts[0] in "ZX" else facts[19]
