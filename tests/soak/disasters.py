# SPDX-License-Identifier: Apache-2.0

"""The faults of Ceph and of the hosts, and how each is mended."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import libvirt
import rados
from openstack.exceptions import SDKException

from tests.soak.fleet import picked
from tests.soak.journey import Journey
from tests.soak.plan import Fault
from tests.soak.requests_of_users import Refused, User, host, task
from tests.testbed.ceph import pools
from tests.testbed.host.compute_host import ComputeHost
from tests.testbed.openstack.volumes import Volumes
from tests.testbed.process import TestbedError
from tests.testbed.whole import Testbed

EVACUATION_SECONDS = 180
# In this time a guest that comes back writes, if it can.
THAWED_SECONDS = 3
QUOTA_POOL = "vms"
STARTS = 5
TROUBLE = (
    *(TestbedError, Refused, SDKException, OSError),
    *(rados.Error, libvirt.libvirtError, subprocess.SubprocessError),
)


class Over(Exception):
    """The run is over: what is broken now is mended in the end."""


class Disasters:
    """Causes the faults of one side, one after the other."""

    def __init__(
        self,
        testbed: Testbed,
        user: User,
        volumes: Volumes,
        journey: Journey,
        end: threading.Event,
    ):
        self._testbed = testbed
        self._user = user
        self._volumes = volumes
        self._journey = journey
        self._end = end

    def run(self, faults: Iterator[Fault]) -> None:
        for fault in faults:
            if self._end.wait(fault.pause_seconds):
                return
            begin = time.monotonic()
            try:
                with self._journey.fault(fault.kind):
                    getattr(self, fault.kind)(fault)
            except Over:
                return
            except TROUBLE as error:
                # What is not mended now is mended in the end.
                self._journey.note(fault.kind, "not mended:", error)
            seconds = time.monotonic() - begin
            self._journey.note(fault.kind, f"ended after {seconds:.1f} s")

    # -- of Ceph --------------------------------------------------------------

    def kill_osd(self, fault: Fault) -> None:
        self._killed(fault, self._osd(fault))

    def kill_mgr(self, fault: Fault) -> None:
        self._killed(fault, "mgr.x")

    def kill_mon(self, fault: Fault) -> None:
        self._killed(fault, "mon.a")

    def stop_osd(self, fault: Fault) -> None:
        name = self._osd(fault)
        self._note(fault, name)
        try:
            self._testbed.cluster.pause_osds(name)
            self._wait(fault.seconds)
        finally:
            self._testbed.cluster.resume_osds()

    def fill_pool(self, fault: Fault) -> None:
        self._note(fault, QUOTA_POOL)
        try:
            set_quota(self._testbed, 1 << 20)
            self._wait(fault.seconds)
        finally:
            set_quota(self._testbed, 0)

    def _osd(self, fault: Fault) -> str:
        osds = self._testbed.cluster.settings.osds
        return f"osd.{int(fault.pick * osds)}"

    def _killed(self, fault: Fault, daemon: str) -> None:
        self._note(fault, daemon)
        self._testbed.cluster.kill(daemon)
        try:
            self._wait(fault.seconds)
        finally:
            # Also when the run is over, because the other threads wait for
            # answers of Ceph before they end.
            self._testbed.cluster.start()

    # -- of a host ------------------------------------------------------------

    def kill_compute(self, fault: Fault) -> None:
        host = self._host(fault)
        self._note(fault, host.name)
        self._testbed.compute(host).kill()
        self._wait(fault.seconds)
        revive(self._testbed, host, self._volumes)

    def kill_qemu(self, fault: Fault) -> None:
        pids = [
            pid for each in self._testbed.hosts for pid in each.qemu_pids()
        ]
        if (pid := picked(sorted(pids), fault.pick)) is None:
            return
        self._note(fault, f"pid {pid}")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def kill_libvirtd(self, fault: Fault) -> None:
        host = self._host(fault)
        self._note(fault, host.name)
        host.kill_libvirtd()
        self._wait(fault.seconds)
        revive(self._testbed, host, self._volumes)

    def cut_off(self, fault: Fault) -> None:
        """Freeze a host, evacuate its servers, and let it go on."""
        host = self._host(fault)
        self._note(fault, host.name)
        try:
            host.freeze()
            self._wait(fault.seconds)
            self._evacuate(host)
        finally:
            host.thaw()
        self._wait(THAWED_SECONDS)
        self._testbed.compute(host).kill()
        revive(self._testbed, host, self._volumes)

    def cut_power(self, fault: Fault) -> None:
        """Kill all that runs on a host, evacuate its servers, start it."""
        host = self._host(fault)
        self._note(fault, host.name)
        self._testbed.cut_power(host)
        self._wait(fault.seconds)
        self._evacuate(host)
        revive(self._testbed, host, self._volumes)

    def _host(self, fault: Fault) -> ComputeHost:
        return self._testbed.hosts[int(fault.pick * len(self._testbed.hosts))]

    def _evacuate(self, away: ComputeHost) -> None:
        declare_down(self._testbed, away)
        asked = []
        for server_id, server in self._user.servers().items():
            if host(server) != away.name:
                continue
            try:
                answer = self._user.act(server_id, {"evacuate": {}})
            except Refused as error:
                refused = f"{server['status']}: {error.status}"
                self._journey.note("evacuate", server_id, "refused", refused)
                self._journey.ended("evacuate", "refused")
            else:
                asked.append(server_id)
                self._journey.evacuated.add(server_id)
                self._journey.note("evacuate", server_id, answer.request_id)
        for server_id in asked:
            self._wait_for_evacuation(server_id, away)

    def _wait_for_evacuation(self, server_id: str, away: ComputeHost) -> None:
        limit = time.monotonic() + EVACUATION_SECONDS
        outcome = "slow"
        while time.monotonic() < limit and outcome == "slow":
            self._wait(0.5)
            with contextlib.suppress(Refused):
                server = self._user.server(server_id)
                if server is None:
                    outcome = "met"
                elif task(server) is None:
                    left = host(server) != away.name
                    outcome = "done" if left else "failed"
        self._journey.note("evacuate", server_id, outcome)
        self._journey.ended("evacuate", outcome)

    def _wait(self, seconds: float) -> None:
        if self._end.wait(seconds):
            raise Over

    def _note(self, fault: Fault, what: str) -> None:
        self._journey.note("FAULT", fault.kind, what, f"{fault.seconds} s")


# -- used at the end too ------------------------------------------------------


def declare_down(testbed: Testbed, host: ComputeHost) -> None:
    testbed.for_another_thread().declare_down(host)


def revive(testbed: Testbed, host: ComputeHost, volumes: Volumes) -> None:
    """Start what does not run on the host; Nova takes it for up on return.

    A nova-compute that ends because Ceph does not answer is started again, as
    by a service manager.

    :raises TestbedError: it did not come up within the limits
    """
    own = testbed.for_another_thread()
    host.thaw()
    host.start()
    volumes.give_secret(host)
    for _ in range(STARTS - 1):
        with contextlib.suppress(*TROUBLE):
            own.restore_power(host)
            return
    own.restore_power(host)


def set_quota(testbed: Testbed, most_bytes: int) -> None:
    """Limit what the pool may hold; 0: no limit."""
    with testbed.cluster.admin() as admin:
        quota = {"field": "max_bytes", "val": str(most_bytes)}
        pools.command(admin, "osd pool set-quota", pool=QUOTA_POOL, **quota)


def heal(testbed: Testbed, volumes: Volumes, journey: Journey) -> None:
    """End all faults, whichever there are.

    :raises TestbedError: something does not come back
    """
    # Its time is that of the faults that it ends.
    with journey.fault("healing"):
        _mend_all(testbed, volumes, journey)


def _mend_all(testbed: Testbed, volumes: Volumes, journey: Journey) -> None:
    mend: list[Callable[[], None]] = [
        testbed.cluster.start,
        lambda: set_quota(testbed, 0),
        *(
            lambda host=host: revive(testbed, host, volumes)
            for host in testbed.hosts
        ),
    ]
    for work in mend:
        try:
            work()
        except TROUBLE as error:
            journey.note("once more:", error)
            work()
