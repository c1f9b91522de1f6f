# SPDX-License-Identifier: Apache-2.0

"""Convert a host's local disks into Ceph, also those of running guests."""

import json
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator

import pytest
import rbd
from openstack.compute.v2.flavor import Flavor
from openstack.compute.v2.server import Server

from tests.e2e import domain, proof
from tests.e2e.conftest import FIRST, Images
from tests.testbed.ceph import rbd_view
from tests.testbed.host.compute_host import ComputeHost
from tests.testbed.openstack.servers import Servers
from tests.testbed.whole import Testbed

pytestmark = pytest.mark.timeout(900)

DISKS = ("disk", "disk.eph0", "disk.swap", "disk.config")


@pytest.fixture
def local_host(stack: Testbed, servers: Servers) -> Iterator[ComputeHost]:
    """The first host, with Nova's own driver and qcow2 files."""
    host = stack.hosts[0]
    qcow2 = {"libvirt": {"images_type": "qcow2", "images_rbd_pool": None}}
    stack.restart_compute(host, qcow2, backend="in-tree")
    yield host
    # Nova's cache for qcow2, which our nova-compute would remove in a day.
    shutil.rmtree(host.folder / "state/instances/_base", ignore_errors=True)
    stack.restart_compute(host)


def convert(stack: Testbed, host: ComputeHost, *words: str) -> list[dict]:
    """Run nova-rbd convert on the host, with the nova.conf of nova-compute."""
    conf = stack.compute(host).words()[-1]
    program = pathlib.Path(sys.executable).with_name("nova-rbd")
    done = host.run(
        [str(program), "--config-file", conf, "convert", *words, "-f", "json"],
        capture_output=True,
        text=True,
        env=dict(os.environ),
        timeout=300,
    )
    print(done.stderr)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_host_moves_to_ceph(
    stack: Testbed,
    images: Images,
    servers: Servers,
    all_disks: Flavor,
    local_host: ComputeHost,
    other_host: ComputeHost,
) -> None:
    nova = stack.openstack.connection().compute
    stopped, running = (
        servers.boot(
            name,
            images.qcow2,
            all_disks,
            config_drive=True,
            availability_zone=FIRST,
        )
        for name in ("stopped", "running")
    )
    before = stack.wait_for_guest(stopped).markers[-1]["disks"]
    assert domain.sources(local_host, stopped)["vda"] is None
    safe = proof.written(stack, stopped)
    nova.stop_server(stopped.id)
    nova.wait_for_server(stopped, status="SHUTOFF", wait=90)
    proof.written(stack, running)

    # Write the new nova.conf. Nobody starts or reboots a guest until
    # nova-compute runs again.
    stack.compute(local_host).stop()
    stack.compute(local_host).configure("plugin", stack.overrides)
    for server, more in ((stopped, ()), (running, ("--live",))):
        rows = convert(stack, local_host, server.id, *more)
        assert sorted(row["Disk"] for row in rows) == sorted(DISKS)
        assert {row["Result"] for row in rows} == {"converted"}
    stack.start_compute(local_host)

    live = proof.went_on(stack, running, 0)
    nova.start_server(stopped.id)
    servers.wait(stopped)
    assert proof.kept(stack, stopped, safe, 2)["disks"] == before
    stack.moves().live(running, other_host.name)
    live = proof.went_on(stack, running, live)
    nova.reboot_server(running.id, "HARD")
    servers.wait(running)
    proof.kept(stack, running, live, 2)
    for server, host in ((stopped, local_host), (running, other_host)):
        assert set(domain.sources(host, server).values()) == {
            f"vms/{server.id}_{disk}" for disk in DISKS
        }
        assert stack.wait_for_config_drive(server)["uuid"] == server.id
        assert marks(stack, server) == {f"{server.id}_{d}" for d in DISKS}
        # Finish on the server's current host. The host that it came from has
        # removed the server's folder, and the old disks with it.
        convert(stack, host, server.id, "--finish")
        assert marks(stack, server) == set()
    folder = local_host.folder / "state/instances" / stopped.id
    assert not list(folder.glob("*converted"))


def marks(stack: Testbed, server: Server) -> set[str]:
    """Names of the server's disks that have a snap."""
    with stack.cluster.admin() as admin, admin.open_ioctx("vms") as vms:
        found = set()
        for name in rbd.RBD().list(vms):
            with rbd_view.opened(vms, name) as image:
                if name.startswith(server.id) and list(image.list_snaps()):
                    found.add(name)
        return found
