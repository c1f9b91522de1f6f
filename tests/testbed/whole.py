# SPDX-License-Identifier: Apache-2.0

"""One whole testbed: Ceph, compute hosts and OpenStack."""

import concurrent.futures
import hashlib
import json
import pathlib
import shutil
from collections.abc import Callable

from openstack.compute.v2.server import Server
from openstack.compute.v2.service import Service
from openstack.exceptions import BadRequestException

from tests.testbed import conf_file, install, paths, versions
from tests.testbed.ceph.cluster import CephCluster
from tests.testbed.conf_file import Conf
from tests.testbed.guest import console as console_
from tests.testbed.host.compute_host import ComputeHost
from tests.testbed.openstack import compute_conf
from tests.testbed.openstack.compute import Compute, is_enabled_as_nova_says
from tests.testbed.openstack.control import OpenStack
from tests.testbed.openstack.moves import Moves
from tests.testbed.openstack.servers import Servers
from tests.testbed.process import TestbedError, wait_for
from tests.testbed.steps import Steps

DEFAULT_NAME = "default"
# Longer than from one of nova-compute's reports to the next.
STATUS_SECONDS = 90


class Testbed:
    """Everything below /tmp/nova-rbd-testbed/<name>.

    :param hosts: number of compute hosts, each with a nova-compute
    :param backend: the image backend, 'plugin' or 'in-tree'
    :param nova: the Nova release, as installed by tests.testbed.install
    :param overrides: override every nova-compute's usual configuration
    :param hub_watched: each nova-compute runs on eventlet, and logs when its
        hub stands still
    """

    # pytest would take it for a class of tests because of its name.
    __test__ = False

    def __init__(
        self,
        name: str = DEFAULT_NAME,
        hosts: int = 1,
        backend: str = "plugin",
        nova: str = versions.NOVA,
        overrides: Conf | None = None,
        hub_watched: bool = False,
    ):
        self.name = name
        self.folder = paths.state(name)
        self.backend = backend
        self.overrides = overrides or {}
        self._record = {
            "hosts": hosts,
            "backend": backend,
            "nova": nova,
            "overrides": self.overrides,
            "hub_watched": hub_watched,
        }
        self.cluster = CephCluster(self.folder / "ceph")
        self.openstack = OpenStack(
            self.folder / "os",
            self.cluster.conf,
            install.venv(nova),
            hub_watched,
        )
        self.hosts = [self.host(n) for n in range(1, hosts + 1)]

    @classmethod
    def load(cls, name: str = DEFAULT_NAME) -> "Testbed":
        """The testbed that was brought up under this name.

        :raises TestbedError: there is none
        """
        record = paths.state(name) / "testbed.json"
        if not record.exists():
            raise TestbedError(f"no testbed {name!r} is up (no {record})")
        return cls(name, **json.loads(record.read_text()))

    def for_another_thread(self) -> "Testbed":
        """The same testbed, with connections of its own."""
        now = {**self._record, "overrides": self.overrides}
        return Testbed(self.name, **now)

    # -- its life ----------------------------------------------------------

    def up(self, steps: Steps | None = None, ceph_only: bool = False) -> None:
        """Start what is not running; usable on return.

        Ceph, the hosts and OpenStack come up side by side.
        """
        steps = steps or Steps()
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "testbed.json").write_text(json.dumps(self._record))
        if ceph_only:
            self._start_ceph(steps)
            return
        _side_by_side(
            lambda: self._start_ceph_and_hosts(steps),
            lambda: self.openstack.up(steps),
        )
        with steps.step(f"start {len(self.hosts)} nova-compute"):
            self._start_computes()

    def down(self) -> None:
        """End all processes, whoever started them, and remove the folder."""
        if not self.folder.exists():
            return
        self.openstack.down()
        for folder in sorted(self.folder.glob("h[1-9]")):
            self.host(int(folder.name.removeprefix("h"))).destroy()
        self.cluster.destroy()
        shutil.rmtree(self.folder)

    def status(self) -> list[tuple[str, str]]:
        """Name and pid (or "-") of every process."""
        rows = [(name, pid) for name, pid, _ in self.cluster.status()]
        for host in self.hosts:
            rows += [(name, pid) for name, pid, _ in host.status()]
        return rows + self.openstack.status()

    def forget_host(self, host: ComputeHost) -> None:
        """End a host for good: its processes, its folder, Nova's records.

        If it stayed in Nova's records, it would be given servers as long as
        Nova takes it for up, and Nova would refuse a new host of that name.
        """
        self.compute(host).stop()
        compute = self.openstack.connection().compute
        for service in compute.services(binary="nova-compute", host=host.name):
            compute.delete_service(service)
        host.destroy()

    # -- compute hosts -----------------------------------------------------

    def host(self, number: int) -> ComputeHost:
        """Return host ``number``, whether or not it was ever started."""
        return ComputeHost(
            self.folder, number, network=_network(self.folder.name)
        )

    def start_host(self, host: ComputeHost) -> None:
        """Start its libvirtd and give it the key of client.nova."""
        host.start()
        # The first request makes libvirt probe every QEMU for ten seconds. It
        # is made now, beside the databases, and not while nova-compute waits.
        host.run(["virsh", "capabilities"], capture_output=True, check=True)
        self.give_secret(host)

    def give_secret(self, host: ComputeHost) -> None:
        """Give its libvirtd the key of client.nova."""
        host.set_secret(
            compute_conf.SECRET_UUID, "nova", self.cluster.key("nova")
        )

    def compute(self, host: ComputeHost) -> Compute:
        """The host's nova-compute."""
        return self.openstack.compute(host)

    def start_compute(
        self,
        host: ComputeHost,
        overrides: Conf | None = None,
        wait: bool = True,
        backend: str | None = None,
    ) -> Compute:
        """Configure and start the host's nova-compute.

        :param overrides: override the testbed's; None removes an option
        :param backend: the testbed's by default
        """
        compute = self.compute(host)
        compute.configure(
            backend or self.backend,
            conf_file.merged(self.overrides, overrides or {}),
        )
        compute.start()
        if wait:
            compute.wait_up(self.openstack.connection())
        return compute

    def restart_compute(
        self,
        host: ComputeHost,
        overrides: Conf | None = None,
        backend: str | None = None,
    ) -> Compute:
        """End the host's nova-compute, start it with another configuration."""
        self.compute(host).stop()
        return self.start_compute(host, overrides, backend=backend)

    def restart_computes(self, overrides: Conf | None = None) -> None:
        """Restart the nova-computes of all hosts, side by side."""
        _side_by_side(*(self.compute(host).stop for host in self.hosts))
        self._start_computes(overrides)

    def cut_power(self, host: ComputeHost) -> None:
        """SIGKILL all that runs on a host: nova-compute, libvirtd, QEMUs.

        The processes have no time to close their connections to Ceph.
        nova-compute is killed first. If it saw its libvirtd die, it would
        tell Nova, and Placement would keep the host disabled for a while
        after its return (Nova's _handle_conn_event).
        """
        self.compute(host).kill()
        host.kill()

    def restore_power(
        self, host: ComputeHost, backend: str | None = None
    ) -> Compute:
        """Start a host as after a power loss, with all that its disks had.

        Returns when Nova takes the host for up. By then nova-compute has dealt
        with the guests that were moved away meanwhile.
        """
        self.start_host(host)
        return self.bring_back(host, backend)

    def bring_back(
        self, host: ComputeHost, backend: str | None = None
    ) -> Compute:
        """Start the nova-compute of a host that was declared down."""
        compute = self.start_compute(host, wait=False, backend=backend)
        # Nova refuses this (400) while this nova-compute has not yet removed
        # the guests that were evacuated.
        wait_for(
            f"Nova lets {host.name} be up again, see {compute.log}",
            lambda: self._declare(host, down=False),
            60,
            interval_seconds=0.5,
        )
        compute.forget_reports()
        compute.wait_up(self.openstack.connection())
        return compute

    def is_down(self, host: ComputeHost) -> bool:
        """Return whether Nova takes the host's nova-compute for down."""
        return bool(self._service(host).state == "down")

    def declare_down(self, host: ComputeHost) -> None:
        """Tell Nova that nothing runs on the host, as after a fencing."""
        self._declare(host, down=True)

    def enable(self, host: ComputeHost, enabled: bool = True) -> None:
        """Enable or disable the host for the scheduler; done on return."""
        connection = self.openstack.connection()
        nova = connection.compute
        change = nova.enable_service if enabled else nova.disable_service
        change(self._service(host))
        if self._service(host).state != "up":
            return  # it will tell Placement when it starts
        wait_for(
            f"Placement knows whether {host.name} is enabled",
            lambda: is_enabled_as_nova_says(connection, host.name),
            STATUS_SECONDS,
            interval_seconds=0.2,
        )

    def instance_folders(self, host: ComputeHost) -> set[str]:
        """Names in the host's instances_path, except Nova's and our own."""
        path = host.folder / "state/instances"
        own = {"_base", "locks", "compute_nodes"}
        found = {entry.name for entry in path.glob("*")} - own
        return {name for name in found if not name.startswith("nova-rbd-")}

    def cached_images(self, host: ComputeHost) -> set[str]:
        """Names of image files, also partial ones, on the host's own disk."""
        path = host.folder / "state/instances"
        return {
            entry.name
            for folder in ("_base", "nova-rbd-staging")
            for entry in (path / folder).rglob("*")
            if entry.is_file()
        }

    def client_environment(self) -> dict[str, str]:
        """OS_*, CEPH_CONF and PATH for ``openstack`` and ``rbd``.

        CEPH_ARGS makes rbd and ceph act as Nova's own user.
        """
        env = {"CEPH_CONF": str(self.cluster.conf), "CEPH_ARGS": "--id nova"}
        if self.openstack.folder.exists():
            env |= self.openstack.site.client_environment()
        return env

    def servers(self) -> Servers:
        """Servers, flavors and images of this OpenStack."""
        return Servers(self.openstack.connection())

    def console(self, server: Server) -> pathlib.Path:
        """The log of the guest's serial console, which may not exist yet.

        It is on the host that Nova says the server is on.
        """
        now = self.servers().get(server)
        folder = self.host(int(now.compute_host.removeprefix("host"))).folder
        return folder / "state/instances" / server.id / "console.log"

    def wait_for_guest(
        self,
        server: Server,
        boots: int = 1,
        limit_seconds: float = console_.LIMIT_SECONDS,
    ) -> console_.Console:
        """Wait until the guest has come up ``boots`` times; its console."""
        path = self.console(server)
        return console_.wait_for_boot(path, boots, limit_seconds)

    def wait_for_counter(
        self,
        server: Server,
        at_least: int,
        limit_seconds: float = console_.LIMIT_SECONDS,
    ) -> console_.Console:
        """Wait until the guest's counter has come so far; its console."""
        path = self.console(server)
        return console_.wait_for_counter(path, at_least, limit_seconds)

    def wait_for_config_drive(
        self, server: Server, limit_seconds: float = console_.LIMIT_SECONDS
    ) -> dict[str, str]:
        """Wait until the guest has read its config drive; what it read.

        :raises TestbedError: not within the limit
        """
        path = self.console(server)
        return wait_for(
            f"the guest reports its config drive in {path}",
            lambda: console_.read(path).config_drive or {},
            limit_seconds,
        )

    def moves(self) -> Moves:
        """Moves between the hosts."""
        return Moves(self.openstack.connection())

    # -- its parts ---------------------------------------------------------

    def _start_ceph(self, steps: Steps) -> None:
        with steps.step("start Ceph"):
            self.cluster.start()

    def _start_ceph_and_hosts(self, steps: Steps) -> None:
        self._start_ceph(steps)
        with steps.step(f"start {len(self.hosts)} compute host(s)"):
            for host in self.hosts:
                self.start_host(host)

    def _start_computes(self, overrides: Conf | None = None) -> None:
        """Start the nova-computes of all hosts side by side, and wait."""
        started = [
            self.start_compute(host, overrides, wait=False)
            for host in self.hosts
        ]
        for compute in started:
            compute.wait_up(self.openstack.connection())

    def _service(self, host: ComputeHost) -> Service:
        """Nova's record of the host's nova-compute."""
        nova = self.openstack.connection().compute
        return next(nova.services(binary="nova-compute", host=host.name))

    def _declare(self, host: ComputeHost, down: bool) -> bool:
        """Force the host down or up in Nova; whether Nova accepted that."""
        nova = self.openstack.connection().compute
        try:
            nova.update_service_forced_down(self._service(host), forced=down)
        except BadRequestException:
            return False
        return True


def _network(name: str) -> str:
    """A loopback network for a testbed's hosts; it depends on the name."""
    digest = hashlib.sha256(name.encode()).digest()
    return f"127.{1 + digest[0] % 254}.{digest[1]}"


def _side_by_side(*jobs: Callable[[], None]) -> None:
    """Run all, then raise the first error."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        futures = [pool.submit(job) for job in jobs]
    for future in futures:
        future.result()
