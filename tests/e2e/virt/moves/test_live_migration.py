# SPDX-License-Identifier: Apache-2.0

"""Live migration: the guest keeps running, on whichever host it ends up."""

import pytest
from openstack.compute.v2.flavor import Flavor

from tests.e2e import proof
from tests.e2e.conftest import FIRST, Images, Tell
from tests.testbed.host.compute_host import ComputeHost
from tests.testbed.openstack import compute_conf
from tests.testbed.openstack.servers import Servers
from tests.testbed.whole import Testbed

pytestmark = pytest.mark.timeout(300)

SLOW_MIB_PER_SECOND = "1"
FAST_MIB_PER_SECOND = "1000"


def test_there_and_back_twice(
    stack: Testbed,
    images: Images,
    servers: Servers,
    all_disks: Flavor,
    other_host: ComputeHost,
    tell: Tell,
) -> None:
    first = stack.hosts[0]
    server = servers.boot(
        "live",
        images.raw,
        all_disks,
        config_drive=True,
        availability_zone=FIRST,
    )
    disks = stack.wait_for_guest(server).markers[-1]["disks"]
    for host in (other_host, first, other_host, first):
        safe = proof.written(stack, server)
        watch = proof.Watch()
        stack.moves().live(server, host.name)
        stood_still = host.downtime_seconds(server.id)
        tell(f"to {host.name} in {watch}, guest down {stood_still:.3f} s")
        safe = proof.went_on(stack, server, safe)
    stack.openstack.connection().compute.reboot_server(server.id, "HARD")
    servers.wait(server)
    assert proof.kept(stack, server, safe, boots=2)["disks"] == disks
    assert stack.wait_for_config_drive(server)["uuid"] == server.id


def test_aborted(
    stack: Testbed,
    images: Images,
    servers: Servers,
    flavor: Flavor,
    other_host: ComputeHost,
) -> None:
    first, moves = stack.hosts[0], stack.moves()
    server = servers.boot("abort", images.raw, flavor, availability_zone=FIRST)
    safe = proof.written(stack, server)
    limit_speed(first, server.id, SLOW_MIB_PER_SECOND)
    moves.begin_live(server, other_host.name)
    moves.abort_live(server)
    moves.live_failed(server)
    assert moves.where(server) == first.name
    safe = proof.went_on(stack, server, safe)
    assert not other_host.qemu_pids()
    limit_speed(first, server.id, FAST_MIB_PER_SECOND)
    moves.live(server, other_host.name)
    proof.went_on(stack, server, safe)


def test_destination_that_cannot_start_it(
    stack: Testbed,
    images: Images,
    servers: Servers,
    all_disks: Flavor,
    other_host: ComputeHost,
) -> None:
    first, moves = stack.hosts[0], stack.moves()
    server = servers.boot(
        "rolled-back",
        images.raw,
        all_disks,
        config_drive=True,
        availability_zone=FIRST,
    )
    safe = proof.written(stack, server)
    other_host.unset_secret(compute_conf.SECRET_UUID)
    try:
        moves.begin_live(server, other_host.name)
        moves.live_failed(server)
    finally:
        stack.give_secret(other_host)
    assert moves.where(server) == first.name
    safe = proof.went_on(stack, server, safe)
    assert not other_host.qemu_pids()
    moves.live(server, other_host.name)
    proof.went_on(stack, server, safe)


def limit_speed(host: ComputeHost, domain: str, mib_per_second: str) -> None:
    """Set how fast libvirt sends the guest's memory to another host."""
    command = ["virsh", "migrate-setspeed", domain, mib_per_second]
    host.run(command, capture_output=True, check=True)
