# SPDX-License-Identifier: Apache-2.0

"""Tell whether a guest stands still because of its disk or of QEMU."""

import contextlib
import re
import socket
from collections.abc import Callable, Iterator

import pytest
from openstack.compute.v2.flavor import Flavor
from openstack.compute.v2.server import Server

from tests.e2e import domain, proof, standstill
from tests.e2e.conftest import FIRST, Images
from tests.testbed.ceph import pools
from tests.testbed.guest import console as console_
from tests.testbed.host.compute_host import ComputeHost
from tests.testbed.openstack.servers import Servers
from tests.testbed.whole import Testbed

pytestmark = pytest.mark.timeout(400)

# A guest of these tests that has not written by then will not write at all.
QUIET_SECONDS = 15
# A living guest writes about fifteen numbers in five of these.
SAMPLE_SECONDS = 0.2
GDB_PORT = 47123
# gdb's numbers for two registers of x86-64.
RIP, EFLAGS = 16, 17
KERNEL = 1 << 63
STEPS = 1000
# QEMU's SSTEP_ENABLE without SSTEP_NOIRQ and SSTEP_NOTIMER.
STEP_WITH_INTERRUPTS = 1
JUMP_TO_ITSELF = "ebfe"
# The bit that is always set, and nothing else: no interrupts.
NO_FLAGS = 2

Ask = Callable[[str], str]


@pytest.fixture
def server(
    stack: Testbed, images: Images, servers: Servers, flavor: Flavor
) -> Server:
    booted = servers.boot("still", images.raw, flavor, availability_zone=FIRST)
    stack.wait_for_guest(booted)
    return booted


@pytest.fixture
def forbid(stack: Testbed) -> Iterator[Callable[[str], None]]:
    """Put clients of Ceph on the blocklist until the test ends."""
    forbidden: list[str] = []
    with stack.cluster.admin() as connection:

        def change(operation: str, address: str) -> None:
            what = {"blocklistop": operation, "addr": address}
            pools.command(connection, "osd blocklist", **what)

        def forbid(address: str) -> None:
            forbidden.append(address)
            change("add", address)

        yield forbid
        for address in forbidden:
            change("rm", address)


@pytest.fixture(autouse=True)
def in_haste(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "WRITE_SECONDS", QUIET_SECONDS)
    monkeypatch.setattr(standstill, "SAMPLE_SECONDS", SAMPLE_SECONDS)


def test_disk_that_takes_no_writes(
    stack: Testbed,
    server: Server,
    other_host: ComputeHost,
    forbid: Callable[[str], None],
) -> None:
    safe = proof.written(stack, server)
    stack.moves().live(server, other_host.name)
    safe = proof.went_on(stack, server, safe)
    # It is another process then, which has not migrated.
    again = proof.started_again[server.id]
    address = owner(stack, standstill.root(other_host, server))
    forbid(address)
    with pytest.raises(AssertionError) as failed:
        # Higher than writes that were already under way could bring it.
        proof.went_on(stack, server, safe + 2 * proof.STEP)
    seen = str(failed.value)
    assert f"running ({'booted' if again else 'migrated'})" in seen
    assert "GUEST-COUNTER-ERROR" in seen
    # Once as the lock's owner, and once on the blocklist.
    assert seen.count(address) >= 2
    assert not standstill.takes_writes(stack, other_host, server)
    assert proof.started_again[server.id] == again


def test_guest_that_hangs_after_a_live_migration(
    stack: Testbed,
    server: Server,
    other_host: ComputeHost,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = stack.hosts[0]
    safe = proof.written(stack, server)
    hang(first, server)
    safe = standstill.last_counter(stack, standstill.root(first, server))
    stack.moves().live(server, other_host.name)
    if standstill.qemu_version(other_host, server) >= standstill.MENDED:
        with pytest.raises(AssertionError, match=r"running \(migrated\)"):
            proof.went_on(stack, server, safe)
        return
    assert proof.went_on(stack, server, safe) > safe
    assert proof.started_again[server.id] == 1
    safe = proof.written(stack, server)
    servers = stack.servers()
    stack.openstack.connection().compute.reboot_server(server.id, "HARD")
    servers.wait(server)
    # kept() does not count the boot that the test did not ask for.
    proof.kept(stack, server, safe, boots=2)
    monkeypatch.setattr(proof, "MOST_BROKEN", proof.started_again.total())
    with pytest.raises(AssertionError, match="were broken before"):
        proof.start_again(stack, server, safe)


def test_incomplete_line_is_left_out() -> None:
    whole = 'GUEST-DISKS {"vda": {}}\r\nGUEST-COUNTER 20\r\n'
    console = console_.parse(f"{whole}GUEST-DISKS {{\r\nGUEST-COUNTER 4")
    assert console.disks == {"vda": {}}
    assert console.counter == 20


def owner(stack: Testbed, image: str) -> str:
    """The address of the client that has an image's exclusive lock."""
    with standstill.opened(stack, image) as found:
        ((_, _, address),) = found.list_lockers()["lockers"]
        return str(address)


def hang(host: ComputeHost, server: Server) -> None:
    """Make the guest's only CPU spin in its kernel, with interrupts off."""
    listen = f"tcp:{host.address}:{GDB_PORT}"
    domain.monitor(host, server, f"gdbserver {listen}")
    with debugger(host.address) as ask:
        # Only an interrupt leads out of a program that computes.
        assert ask(f"Qqemu.sstep={STEP_WITH_INTERRUPTS}") == "OK"
        for _ in range(STEPS):
            place = int.from_bytes(bytes.fromhex(ask(f"p{RIP:x}")), "little")
            if place >= KERNEL:
                break
            ask("s")
        assert place >= KERNEL
        assert ask(f"M{place:x},2:{JUMP_TO_ITSELF}") == "OK"
        flags = NO_FLAGS.to_bytes(4, "little").hex()
        assert ask(f"P{EFLAGS:x}={flags}") == "OK"
        assert ask("D") == "OK"
    domain.monitor(host, server, "gdbserver none")


@contextlib.contextmanager
def debugger(address: str) -> Iterator[Ask]:
    """Speak gdb's remote protocol; the guest is stopped inside the block."""
    with socket.create_connection((address, GDB_PORT), timeout=10) as gdb:

        def ask(words: str) -> str:
            checksum = sum(words.encode()) % 256
            gdb.sendall(f"${words}#{checksum:02x}".encode())
            while (found := answer()).startswith("T") and words != "s":
                pass  # QEMU also tells unasked that the guest has stopped.
            return found

        def answer() -> str:
            while not (packet := re.search(rb"\$(.*?)#..", rest, re.DOTALL)):
                rest.extend(gdb.recv(4096))
            told = bytes(packet[1]).decode(errors="replace")
            del rest[: packet.end()]
            gdb.sendall(b"+")
            return told

        rest = bytearray()
        # Without this query QEMU reads no single register (7.2, gdbstub.c).
        ask("qXfer:features:read:target.xml:0,fff")
        yield ask
