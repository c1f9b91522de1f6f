# SPDX-License-Identifier: Apache-2.0

"""A host loses power, its servers are evacuated, and the host comes back."""

from collections.abc import Iterator

import pytest
from openstack.compute.v2.flavor import Flavor

from tests.e2e import proof
from tests.e2e.conftest import FIRST, Images, Tell, wait_until_at_home
from tests.testbed.host.compute_host import ComputeHost
from tests.testbed.openstack.servers import Servers
from tests.testbed.whole import Testbed

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def power_back(stack: Testbed, servers: Servers) -> Iterator[None]:
    """Start all hosts before the servers are deleted, also after a failure."""
    yield
    for host in stack.hosts:
        if not host.pids():
            stack.restore_power(host)


def test_there_and_back(
    stack: Testbed,
    images: Images,
    servers: Servers,
    all_disks: Flavor,
    other_host: ComputeHost,
    power_back: None,
    tell: Tell,
) -> None:
    first, moves = stack.hosts[0], stack.moves()
    server = servers.boot(
        "evacuate",
        images.raw,
        all_disks,
        config_drive=True,
        availability_zone=FIRST,
    )
    disks = stack.wait_for_guest(server).markers[-1]["disks"]
    safe = proof.written(stack, server)

    stack.cut_power(first)
    stack.declare_down(first)
    watch = proof.Watch()
    moves.evacuate(server, other_host.name)
    tell(f"evacuated after {watch}")
    assert proof.kept(stack, server, safe, boots=2)["disks"] == disks
    tell(f"the guest writes again after {watch}")
    assert stack.wait_for_config_drive(server)["uuid"] == server.id

    stack.restore_power(first)
    wait_until_at_home(stack)
    assert server.id not in domains(first)
    safe = proof.written(stack, server)
    moves.live(server, first.name)
    proof.went_on(stack, server, safe)


def domains(host: ComputeHost) -> list[str]:
    """UUIDs of all domains that the host's libvirt knows."""
    command = ["virsh", "list", "--all", "--uuid"]
    done = host.run(command, capture_output=True, text=True, check=True)
    return done.stdout.split()
