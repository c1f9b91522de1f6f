# SPDX-License-Identifier: Apache-2.0

"""One nova-compute on one compute host: start, stop, kill, wait until up."""

import datetime
import os
import pathlib
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Protocol

import openstack.connection

from tests.testbed import conf_file
from tests.testbed.openstack import compute_conf, hub_watch
from tests.testbed.openstack.site_facts import Site
from tests.testbed.process import TestbedError, ended_at_start, wait_for

UP_SECONDS = 90
# What its configuration may name.
_IMPORTABLE = pathlib.Path(__file__).parent / "importable"


class Host(Protocol):
    """What Compute needs of a host (see host.compute_host.ComputeHost)."""

    name: str
    address: str
    state_path: pathlib.Path

    @property
    def programs(self) -> pathlib.Path:
        """A folder that comes first in its PATH."""

    def command(self, command: Sequence[str]) -> list[str]:
        """The command that runs ``command`` inside the host."""


class Compute:
    """nova-compute on ``host``.

    :param hub_watched: it logs when its eventlet hub stands still, see
        hub_watch
    """

    def __init__(self, site: Site, host: Host, hub_watched: bool = False):
        self._site = site
        self.host = host
        self._hub_watched = hub_watched
        self._begun = ""
        self.process = site.process(f"compute-{host.name}")

    @property
    def log(self) -> pathlib.Path:
        """What nova-compute logged, with debug lines, and printed."""
        return self._site.log(f"nova-compute-{self.host.name}")

    def configure(
        self, backend: str, overrides: conf_file.Conf | None = None
    ) -> pathlib.Path:
        """Write its nova.conf; an override of None removes an option."""
        host = self.host
        return conf_file.write(
            self._site.etc("compute") / f"{host.name}.conf",
            compute_conf.host_conf(
                self._site, host.name, host.address, host.state_path
            ),
            compute_conf.backend_conf(self._site, backend),
            overrides or {},
        )

    def start(self) -> None:
        """Start with the configuration written last; don't wait."""
        if self.process.pid() is None:
            self._begun = _now()
        self.process.start(
            self.host.command([*self._watch(), *self.words()]),
            self.log,
            env=self.environment(),
        )

    def words(self) -> list[str]:
        """nova-compute's command line inside the host."""
        conf = self._site.etc("compute") / f"{self.host.name}.conf"
        return [self._site.bin("nova-compute"), "--config-file", str(conf)]

    def _watch(self) -> list[str]:
        """What the command line begins with if the hub is watched."""
        if not self._hub_watched:
            return []
        return [self._site.bin("python"), "-P", hub_watch.__file__]

    def environment(
        self, more: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """What nova-compute finds in its environment."""
        env = self._site.environment()
        env["PATH"] = f"{self.host.programs}:{env['PATH']}"
        env["PYTHONPATH"] = str(_IMPORTABLE)
        return {**env, **(more or {})}

    def run_to_end(
        self, limit_seconds: float, env: Mapping[str, str] | None = None
    ) -> tuple[int, str]:
        """Start a nova-compute that must end by itself; exit code and log.

        :raises TestbedError: it still ran after the limit, and was killed
        """
        with subprocess.Popen(
            self.host.command(self.words()),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self.environment(env),
            text=True,
            start_new_session=True,
        ) as child:
            # Recorded, so that the next run can end it if this run is killed.
            self.process.adopt(child.pid)
            try:
                output, _ = child.communicate(timeout=limit_seconds)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                output, _ = child.communicate()
                raise TestbedError(
                    f"nova-compute still runs after {limit_seconds:g} s with "
                    f"a configuration it must refuse:\n{output[-3000:]}"
                ) from None
            finally:
                self.process.record.unlink(missing_ok=True)
        return child.returncode, output

    def stop(self) -> None:
        """Stop it cleanly. Does nothing if it does not run."""
        self.process.stop(limit_seconds=20, group=True)

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        self.process.signal(signal.SIGKILL)
        self.process.stop(limit_seconds=5, group=True)

    def forget_reports(self) -> None:
        """Count only its reports from now on.

        An admin's change looks like a report, because Nova's API shows when
        the service's record was last changed by anyone. The scheduler goes by
        the last report (last_seen_up).
        """
        self._begun = _now()

    def wait_up(self, connection: openstack.connection.Connection) -> None:
        """Wait until Nova can place servers on it.

        A report of an earlier nova-compute of this host doesn't count.

        :raises TestbedError: nova-compute ended, or is not up in time
        """
        name = self.host.name

        def usable() -> bool:
            if self.process.pid() is None:
                raise ended_at_start(f"nova-compute of {name}", self.log)
            return (
                self._reported(connection)
                and _has_inventory(connection, name)
                and is_enabled_as_nova_says(connection, name)
            )

        wait_for(
            f"Nova and Placement know {name}, see {self.log}",
            usable,
            UP_SECONDS,
            interval_seconds=0.3,
        )

    def _reported(self, connection: openstack.connection.Connection) -> bool:
        answer = connection.compute.get(
            f"/os-services?binary=nova-compute&host={self.host.name}"
        )
        return any(
            service["state"] == "up"
            and (service["updated_at"] or "") > self._begun
            for service in answer.json()["services"]
        )


def _now() -> str:
    """UTC in the form of Nova's API."""
    now = datetime.datetime.now(datetime.UTC)
    return now.strftime("%Y-%m-%dT%H:%M:%S.000000")


def is_enabled_as_nova_says(
    connection: openstack.connection.Connection, name: str
) -> bool:
    """Whether Placement agrees with Nova that a host is enabled or disabled.

    nova-compute tells Placement. If it reports its resources at the same
    moment, that report takes the change back, until the next report a minute
    later (34: ResourceTracker._get_traits, ComputeVirtAPI).
    """
    compute, placement = connection.compute, connection.placement
    (service,) = compute.services(binary="nova-compute", host=name)
    (provider,) = placement.resource_providers(name=name)
    url = f"/resource_providers/{provider.id}/traits"
    answer = placement.get(url, microversion="1.6")
    disabled = "COMPUTE_STATUS_DISABLED" in answer.json()["traits"]
    return disabled == (service.status == "disabled")


def _has_inventory(
    connection: openstack.connection.Connection, name: str
) -> bool:
    """Whether the host is mapped to its cell, up, and has reported."""
    compute, placement = connection.compute, connection.placement
    up = [
        service
        for service in compute.services(binary="nova-compute", host=name)
        if service.state == "up"
    ]
    hypervisors = [h.name for h in compute.hypervisors()]
    if not up or name not in hypervisors:
        return False
    providers = list(placement.resource_providers(name=name))
    if not providers:
        return False
    url = f"/resource_providers/{providers[0].id}/inventories"
    return "MEMORY_MB" in placement.get(url).json()["inventories"]
