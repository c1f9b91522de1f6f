# SPDX-License-Identifier: Apache-2.0

"""OpenStack's control plane on loopback, and a nova-compute per host."""

import pathlib
import shutil
import signal

import openstack
import openstack.connection

from tests.testbed import conf_file
from tests.testbed.openstack import catalog, databases, service_conf
from tests.testbed.openstack.compute import Compute, Host
from tests.testbed.openstack.infra import Infra
from tests.testbed.openstack.services import Services
from tests.testbed.openstack.site_facts import Site
from tests.testbed.process import Process, wait_for
from tests.testbed.steps import Steps


class OpenStack:
    """Keystone, Placement, Glance and Nova in ``folder``.

    :param ceph_conf: the cluster Glance and Nova use; it need not run before
        the first image is uploaded or the first nova-compute started
    :param hub_watched: see :class:`Compute`
    """

    def __init__(
        self,
        folder: pathlib.Path,
        ceph_conf: pathlib.Path,
        venv: pathlib.Path,
        hub_watched: bool = False,
    ):
        self.folder = folder
        self._hub_watched = hub_watched
        self._ceph_conf = ceph_conf
        self._venv = venv
        self._connection: openstack.connection.Connection | None = None

    @property
    def site(self) -> Site:
        """Ports, password and paths; made at first use."""
        return Site.load(self.folder, self._venv, self._ceph_conf)

    def up(self, steps: Steps | None = None) -> None:
        """Start what does not run of the control plane; usable on return.

        :raises TestbedError: a part ended or did not answer; names its log
        """
        steps = steps or Steps()
        site = self.site
        service_conf.write_all(site)
        with steps.step("start MariaDB, RabbitMQ, memcached"):
            Infra(site).start()
        with steps.step("fill the databases"):
            databases.sync(site)
        services = Services(site)
        with steps.step("start Keystone, Placement, Glance, Nova"):
            services.start_apis()
            services.wait(["keystone"])
            catalog.fill(site, self.connection())
            # That connection has read the catalog while it was empty.
            self._connection = None
            # The workers end at once if they can't log in at Placement.
            services.start_workers()
            services.wait()
            # A nova-compute that starts earlier waits ten seconds more.
            wait_for(
                "Nova knows its conductor and scheduler, see "
                f"{site.log('nova-conductor')}",
                self._workers_up,
                60,
                interval_seconds=0.3,
            )

    def down(self) -> None:
        """End all processes and remove the folder, if it exists."""
        processes = self._processes()
        # No data is kept, so that all processes may end at once.
        for process in processes:
            process.signal(signal.SIGTERM)
        for process in processes:
            process.stop(limit_seconds=10, group=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def status(self) -> list[tuple[str, str]]:
        """Name and pid (or "-") of every process."""
        return [(p.name, str(p.pid() or "-")) for p in self._processes()]

    def restart_nova_api(self, overrides: conf_file.Conf) -> None:
        """Restart Nova's API with options that override its usual ones."""
        site = self.site
        path = site.etc("nova") / "nova.conf"
        conf_file.write(path, service_conf.nova(site), overrides)
        services = Services(site)
        site.process("nova").stop(group=True)
        services.start_apis()
        services.wait(["nova"])

    def compute(self, host: Host) -> Compute:
        """The host's nova-compute."""
        return Compute(self.site, host, self._hub_watched)

    def connection(self) -> openstack.connection.Connection:
        """openstacksdk as the admin, with Nova's microversion 2.90."""
        if self._connection is None:
            env = self.site.client_environment()
            self._connection = openstack.connection.Connection(
                auth={
                    "auth_url": env["OS_AUTH_URL"],
                    "username": env["OS_USERNAME"],
                    "password": env["OS_PASSWORD"],
                    "project_name": env["OS_PROJECT_NAME"],
                    "user_domain_id": env["OS_USER_DOMAIN_ID"],
                    "project_domain_id": env["OS_PROJECT_DOMAIN_ID"],
                },
                region_name=env["OS_REGION_NAME"],
                compute_default_microversion=env["OS_COMPUTE_API_VERSION"],
                placement_default_microversion="1.36",
            )
        return self._connection

    def _workers_up(self) -> bool:
        known = {s.binary for s in self.connection().compute.services()}
        return {"nova-conductor", "nova-scheduler"} <= known

    def _processes(self) -> list[Process]:
        run = self.folder / "run"
        return [Process(run, r.stem) for r in sorted(run.glob("*.json"))]
