# SPDX-License-Identifier: Apache-2.0

"""Simulated compute hosts: each has its own libvirtd, QEMUs, name, folders.

A host is a mount and UTS namespace. It shares the machine's network, where
it has a loopback address of its own, and the machine's process table. A tag
in their mount tables tells its processes from others, even after a run that
crashed.
"""

import base64
import contextlib
import hashlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import libvirt

from tests.testbed.host import host_conf, namespace, shell
from tests.testbed.process import (
    Process,
    TestbedError,
    freeze,
    rss_bytes,
    start_time,
    wait_for,
)

# Unix socket paths are limited to 107 bytes.
LONGEST_SOCKET_PATH = 107


class ComputeHost:
    """Host ``number`` (1 to 9), all its files in ``folder/h<number>``.

    :param state: the path at which every host sees its own
        folder/h<number>/state; Nova wants one instances_path for all hosts
    :param network: first three bytes of its address; two testbeds on one
        machine need different ones
    """

    def __init__(
        self,
        folder: pathlib.Path,
        number: int,
        state: pathlib.Path | None = None,
        network: str = "127.0.0",
    ):
        self.number = number
        self.name = f"host{number}"
        self.network = network
        self.address = host_conf.address(network, number)
        self.folder = pathlib.Path(folder).absolute() / f"h{number}"
        self.state_path = state or self.folder.parent / "state"
        self.uuid = str(uuid.uuid5(uuid.NAMESPACE_URL, str(self.folder)))
        digest = hashlib.sha256(str(self.folder).encode()).hexdigest()
        self._tag = f"testbed-{digest[:24]}"
        self._anchor = Process(self.folder / "pid", "namespace")
        self._libvirtd = Process(self.folder / "pid", "libvirtd")

    # -- its life ----------------------------------------------------------

    def start(self) -> None:
        """Start the whole host, or only its libvirtd if that has died.

        :raises TestbedError: it does not come up; names the log
        """
        if self._anchor.pid() is None:
            self._end_all()
            self._boot()
        self._start_libvirtd()

    def stop(self) -> None:
        """Shut down the guests that run, then libvirtd and all else.

        Domains stay defined, as on a host that is switched off.
        """
        if self._libvirtd.pid() is not None:
            with contextlib.suppress(libvirt.libvirtError), self._open() as c:
                for domain in c.listAllDomains(
                    libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE
                ):
                    domain.destroyFlags(libvirt.VIR_DOMAIN_DESTROY_GRACEFUL)
        self.stop_libvirtd()
        self._end_all()

    def stop_libvirtd(self) -> None:
        """Stop libvirtd while its guests go on; start() brings it back."""
        self._libvirtd.stop()

    def kill_libvirtd(self) -> None:
        """SIGKILL libvirtd while its guests go on; start() brings it back."""
        self._libvirtd.signal(signal.SIGKILL)
        self._libvirtd.stop()

    def freeze(self) -> None:
        """SIGSTOP everything that runs on it, as if the host were cut off."""
        anchor = self._anchor.pid()
        freeze(*(pid for pid in self.pids() if pid != anchor))

    def thaw(self) -> None:
        """Let everything go on that freeze() has stopped."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL everything that runs on it, guests too, as in a crash."""
        self._end_all()

    def destroy(self) -> None:
        """End everything, and remove its folder if it exists."""
        self._end_all()
        if self.folder.exists():
            shutil.rmtree(self.folder)

    # -- work on it --------------------------------------------------------

    def command(self, command: Sequence[str]) -> list[str]:
        """Return the command that runs ``command`` on this host.

        nsenter replaces itself with ``command``, so that a Process has the pid
        of the program itself. The command begins in "/".
        """
        pid = self._anchor.pid()
        if pid is None:
            raise TestbedError(f"{self.name} is not running: start it first")
        return ["nsenter", "-t", str(pid), "-m", "-u", "--", *command]

    def run(
        self, command: Sequence[str], **kwargs: Any
    ) -> subprocess.CompletedProcess:
        """Run a command on this host; kwargs as for subprocess.run."""
        return subprocess.run(self.command(command), **kwargs)

    @property
    def programs(self) -> pathlib.Path:
        """Folder with this host's own ssh and scp, to come first in PATH."""
        return self.folder / "bin"

    @property
    def libvirt_uri(self) -> str:
        """URI for clients on the machine; on the host it's qemu:///system."""
        path = str(self.folder / "run" / "libvirt-sock")
        if len(path) > LONGEST_SOCKET_PATH:
            root = f"/proc/{self._anchor.pid()}/root"
            path = f"{root}/run/libvirt/libvirt-sock"
        return f"qemu:///system?socket={path}"

    @property
    def migration_uri(self) -> str:
        """libvirtd of this host for other hosts: plain TCP, no login."""
        return f"qemu+tcp://{self.address}/system"

    def set_secret(self, secret_uuid: str, user: str, key: str) -> None:
        """Give libvirt the cephx key (base64) of client.<user>."""
        xml = host_conf.secret_xml(secret_uuid, user)
        with self._open() as connection:
            secret = connection.secretDefineXML(xml)
            secret.setValue(base64.b64decode(key))

    def unset_secret(self, secret_uuid: str) -> None:
        """Make libvirt forget a secret, if it has it."""
        with self._open() as connection:
            for secret in connection.listAllSecrets():
                if secret.UUIDString() == secret_uuid:
                    secret.undefine()

    def downtime_seconds(self, domain: str) -> float:
        """How long a guest stood still when it last migrated to this host.

        libvirt's own figure, which the destination keeps too
        (virDomainGetJobStats, VIR_DOMAIN_JOB_STATS_COMPLETED).

        :param domain: its UUID
        """
        with self._open() as connection:
            found = connection.lookupByUUIDString(domain)
            # Without KEEP_COMPLETED libvirt gives the figures only once.
            stats = found.jobStats(
                libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED
                | libvirt.VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED
            )
        return float(stats["downtime"]) / 1000

    # -- what runs on it ---------------------------------------------------

    def pids(self) -> list[int]:
        """Return all processes on this host, whoever started them."""
        return [
            int(entry.name)
            for entry in pathlib.Path("/proc").iterdir()
            if entry.name.isdigit() and self._is_ours(entry)
        ]

    def qemu_pids(self) -> list[int]:
        return [
            p for p in self.pids() if _program(p).startswith("qemu-system")
        ]

    def status(self) -> list[tuple[str, str, str]]:
        """Return a row for each process: host and program, pid, RSS in MiB."""
        return [
            (f"{self.name} {_program(p)}", str(p), str(rss_bytes(p) >> 20))
            for p in self.pids()
        ]

    # -- its parts ---------------------------------------------------------

    def _is_ours(self, entry: pathlib.Path) -> bool:
        try:
            return f" {self._tag} " in (entry / "mountinfo").read_text()
        except OSError:  # it has just ended
            return False

    def _boot(self) -> None:
        """Make the namespace; /run is empty as after a boot."""
        # nova-compute makes its instances_path with its first server, but
        # needs it before that if a server comes by live migration.
        instances = "state/instances"
        for name in ("etc", "run", "lib", "cache", "log", instances, "ns"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.state_path.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.folder / "run")
        (self.folder / "run").mkdir()
        host_conf.write_all(self)
        self._link_programs()
        log = self.folder / "log" / "namespace.out"
        log.unlink(missing_ok=True)
        program = pathlib.Path(namespace.__file__)
        command = [sys.executable, str(program), self._machine().to_json()]
        self._anchor.start(command, log)

        def ready() -> bool:
            if self._anchor.pid() is None:
                raise TestbedError(f"no namespace for {self.name}, see {log}")
            return log.read_text().startswith("ready")

        wait_for(f"{self.name} has its namespace", ready, 20, 0.02)

    def _link_programs(self) -> None:
        self.programs.mkdir(exist_ok=True)
        for name in ("ssh", "scp"):
            link = self.programs / name
            link.unlink(missing_ok=True)
            link.symlink_to(shell.__file__)

    def _machine(self) -> namespace.Machine:
        binds = {
            "/etc/hosts": "hosts",
            "/etc/passwd": "passwd",
            "/etc/group": "group",
            "/etc/libvirt": "etc",
            "/run/libvirt": "run",
            "/var/lib/libvirt": "lib",
            "/var/cache/libvirt": "cache",
            "/var/log/libvirt": "log",
            str(self.state_path): "state",
        }
        return namespace.Machine(
            name=self.name,
            tag=self._tag,
            staging=str(self.folder / "ns"),
            binds={t: str(self.folder / own) for t, own in binds.items()},
        )

    def _start_libvirtd(self) -> None:
        log = self.folder / "log" / "libvirtd.out"
        socket = self.folder / "run" / "libvirt-sock"
        pid_file = "/run/libvirt/libvirtd.pid"
        self._libvirtd.start(
            self.command(["libvirtd", "--listen", "--pid-file", pid_file]),
            log,
        )

        def answers() -> bool:
            if self._libvirtd.pid() is None:
                raise TestbedError(f"libvirtd of {self.name} died, see {log}")
            if not socket.exists():
                return False
            try:
                with self._open():
                    return True
            except libvirt.libvirtError:
                return False

        wait_for(f"libvirtd of {self.name} answers", answers, 30, 0.05)

    @contextlib.contextmanager
    def _open(self) -> Iterator[libvirt.virConnect]:
        # libvirt's default handler would print each error, too.
        libvirt.registerErrorHandler(lambda *_: None, None)
        connection = libvirt.open(self.libvirt_uri)
        try:
            yield connection
        finally:
            connection.close()

    def _end_all(self) -> None:
        """SIGKILL all processes, also those that are started meanwhile."""

        def ended() -> bool:
            alive = [p for p in self.pids() if start_time(p) is not None]
            for pid in alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not alive

        wait_for(f"all processes of {self.name} have ended", ended, 20, 0.05)
        # Forget the pids.
        for process in (self._libvirtd, self._anchor):
            process.stop()


def _program(pid: int) -> str:
    try:
        words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    return os.path.basename(words[0].decode(errors="replace"))
