# SPDX-License-Identifier: Apache-2.0

"""Identify the process that wrote an entry, and tell whether it may live."""

import contextlib
import dataclasses
import functools
import os
import socket

MACHINE_ID = "/etc/machine-id"


@dataclasses.dataclass(frozen=True)
class Process:
    """A process, as entries record it.

    A pid alone comes again, in a container at each start. Two processes may
    well have begun in the same clock tick.

    :ivar process: machine, boot, pid namespace and start of the process, which
        together with host and pid no other process has
    """

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
        """Return whether it may be alive: True if it cannot be seen here."""
        if self.host != socket.gethostname():
            return True
        machine, boot, namespace, started = self.process.split(".")
        if boot != _boot():
            # It ran on this machine before the last boot; or on a machine of
            # the same name in another cloud or cell.
            return not machine or machine != _machine()
        if int(namespace) != _pid_namespace():
            return True
        return _started(self.pid) == started


def this_process() -> Process:
    """Return this very process."""
    return of_pid(os.getpid())


@functools.cache
def of_pid(pid: int) -> Process:
    """Return a process of this host."""
    identity = f"{_machine()}.{_boot()}.{_pid_namespace()}.{_started(pid)}"
    return Process(socket.gethostname(), pid, identity)


@functools.cache
def _machine() -> str:
    """Return the id of this installation (machine-id(5)), or "".

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
    """Return the clock tick, since the boot, of its start; "": not alive."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            facts = file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    # A zombie only waits for its parent (proc(5): state, starttime).
    return "" if facts[0] in "ZX" else facts[19]
