# SPDX-License-Identifier: Apache-2.0

"""Find out why a guest is silent: its CPU, its console, or its disk.

A guest that is emulated (TCG) can be broken by a live migration. QEMU before
9.0 clears the dirty bits of pages to which its TLB still lets the guest write
unseen (fixed by 03bfc2188f06, "physmem: Fix migration dirty bitmap coherency
with TCG memory access", which Debian's 7.2.22 lacks). What the guest then
writes to a page that has been sent already is lost. Two results were seen: a
guest whose only CPU waits, with interrupts off, for its run queue's lock,
because the write that released the lock was lost; and a guest that is idle
for ever. The disk works, and the destination's QEMU writes to it. Without
Ceph and libvirt, on a busy machine, 4 of 116 migrations between two QEMU
7.2.22 broke the guest, and none of 175 between two QEMU 10.0.2.
"""

import contextlib
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator

import rados
import rbd
from openstack.compute.v2.server import Server

from tests.e2e import domain
from tests.testbed.ceph import pools, rbd_view
from tests.testbed.guest import disk as disk_
from tests.testbed.host.compute_host import ComputeHost
from tests.testbed.whole import Testbed

LINES = 12
SAMPLES = 5
SAMPLE_SECONDS = 1.0
# A sector of the root disk between the boot record and the first partition.
UNUSED_SECTOR = 128
# The first QEMU that loses no write of an emulated guest.
MENDED = (9, 0)
FAULTS = (
    *(AssertionError, AttributeError, LookupError, OSError, ValueError),
    *(subprocess.SubprocessError, rados.Error, rbd.Error),
)


def report(stack: Testbed, server: Server) -> str:
    """Describe the server in sections; a section that fails says why."""
    host = home(stack, server)
    sections: dict[str, Callable[[], str]] = {
        "server": lambda: _of_nova(stack, server),
        "last move": lambda: str(stack.moves().last(server)["status"]),
        **{
            f"domain on {each.name}": lambda each=each: domain.virsh(
                each, "domstate", "--reason", server.id
            )
            for each in stack.hosts
        },
        f"CPU on {host.name}": lambda: "\n".join(_cpu(host, server)),
        "counter on the disk, then and now": lambda: _counters(
            stack, host, server
        ),
        **{
            f"console on {each.name}": lambda each=each: _console(each, server)
            for each in stack.hosts
        },
        "disks": lambda: _holders(stack, host, server),
        "blocklist": lambda: str(_blocklist(stack)),
        "QEMU's log": lambda: _qemu_log(host, server),
    }
    return "\n".join(
        f"-- {title}\n{_said(section)}" for title, section in sections.items()
    )


def is_qemus_fault(stack: Testbed, server: Server) -> bool:
    """Tell whether QEMU has broken the guest although its disk works.

    That is so only if an old QEMU emulates the guest, the guest came by live
    migration, and its disk works: all requests of the guest have ended, QEMU
    can write to the disk, and other clients read what QEMU wrote. Ask only
    when the guest's counter has stopped.
    """
    host = home(stack, server)
    try:
        came = domain.virsh(host, "domstate", "--reason", server.id)
        return (
            domain.xml(host, server).get("type") == "qemu"
            and qemu_version(host, server) < MENDED
            and came == "running (migrated)"
            and _stands_still(stack, host, server)
            and _ends_its_requests(host, server)
            and takes_writes(stack, host, server)
        )
    except FAULTS:
        return False


def takes_writes(stack: Testbed, host: ComputeHost, server: Server) -> bool:
    """Tell whether another client reads what QEMU writes to the root disk.

    The guest's own QEMU writes, to a sector outside all partitions. QEMU
    hangs if the disk takes no writes.

    :raises subprocess.SubprocessError: QEMU does not answer within the limit
    """
    disk = domain.xml(host, server).find("devices/disk[@device='disk']")
    device = disk.find("alias").get("name")
    qemu_io = f"qemu-io -d /machine/peripheral/{device}/virtio-backend"
    offset, length = UNUSED_SECTOR * disk_.SECTOR, disk_.SECTOR
    # A byte that differs from the one that the sector has now.
    found = read(stack, root(host, server), offset, length)
    byte = (found[0] + 1 + os.urandom(1)[0] % 255) % 256
    for command in (f"write -P {byte} {offset} {length}", "flush"):
        domain.monitor(host, server, f'{qemu_io} "{command}"')
    written = read(stack, root(host, server), offset, length)
    return written == bytes([byte]) * length


def home(stack: Testbed, server: Server) -> ComputeHost:
    """The host that Nova says the server is on."""
    name = stack.moves().where(server)
    return stack.host(int(name.removeprefix("host")))


def root(host: ComputeHost, server: Server) -> str:
    """Pool and name of the RBD image of the server's first disk."""
    return next(name for name in domain.sources(host, server).values() if name)


def read(stack: Testbed, image: str, offset: int, length: int) -> bytes:
    """Read bytes of an image from the cluster, over a new connection."""
    with opened(stack, image) as found:
        return bytes(found.read(offset, length))


@contextlib.contextmanager
def opened(stack: Testbed, image: str) -> Iterator[rbd.Image]:
    """Open an image, "pool/name", read-only and over a new connection."""
    pool, _, name = image.partition("/")
    with (
        stack.cluster.admin() as connection,
        connection.open_ioctx(pool) as ioctx,
        rbd_view.opened(ioctx, name) as found,
    ):
        yield found


def last_counter(stack: Testbed, image: str) -> int:
    """The highest number in the guest's ring on the disk; 0 if it is empty."""
    first, sectors, _ = disk_.RING
    size = disk_.SECTOR
    ring = read(stack, image, first * size, sectors * size)
    return max(map(int, re.findall(rb"COUNTER (\d+)", ring)), default=0)


def _said(section: Callable[[], str]) -> str:
    try:
        return section()
    except subprocess.CalledProcessError as error:
        return str(error.stderr).strip()
    except FAULTS as error:
        return repr(error)


def _of_nova(stack: Testbed, server: Server) -> str:
    now = stack.servers().get(server)
    return f"{now.status}, {now.task_state}, {now.compute_host}"


def _cpu(host: ComputeHost, server: Server) -> list[str]:
    """Sample the CPU's instruction pointer and flags several times."""
    samples = []
    for _ in range(SAMPLES):
        text = domain.monitor(host, server, "info registers")
        samples.extend(line for line in text.splitlines() if "RIP=" in line)
        time.sleep(SAMPLE_SECONDS)
    assert len(samples) == SAMPLES, samples
    return samples


def _stands_still(stack: Testbed, host: ComputeHost, server: Server) -> bool:
    image = root(host, server)
    before = last_counter(stack, image)
    time.sleep(SAMPLES * SAMPLE_SECONDS)
    return last_counter(stack, image) == before


def _ends_its_requests(host: ComputeHost, server: Server) -> bool:
    """Suspend and resume the guest; true if virsh does not fail.

    QEMU stops a guest only when all its requests have ended (do_vm_stop).
    """
    domain.virsh(host, "suspend", server.id)
    domain.virsh(host, "resume", server.id)
    return True


def _counters(stack: Testbed, host: ComputeHost, server: Server) -> str:
    image = root(host, server)
    before = last_counter(stack, image)
    time.sleep(SAMPLES * SAMPLE_SECONDS)
    writes = [
        line
        for line in domain.virsh(host, "domblkstat", server.id).splitlines()
        if re.search(r" (wr|flush)_(req|operations)", line)
    ]
    return "\n".join(
        [f"{before} {last_counter(stack, image)} in {image}", *writes]
    )


def _console(host: ComputeHost, server: Server) -> str:
    path = host.folder / "state/instances" / server.id / "console.log"
    lines = path.read_text(errors="replace").splitlines()
    return "\n".join(lines[-LINES:])


def _holders(stack: Testbed, host: ComputeHost, server: Server) -> str:
    lines = []
    for image in filter(None, domain.sources(host, server).values()):
        with opened(stack, image) as found:
            locks = found.list_lockers() or {"lockers": []}
            watchers = [w["addr"] for w in found.watchers_list()]
        lines.append(
            f"{image}: locked by {locks['lockers']}, watched by {watchers}"
        )
    return "\n".join(lines)


def _blocklist(stack: Testbed) -> object:
    with stack.cluster.admin() as connection:
        return pools.command(connection, "osd dump")["blocklist"]


def _qemu_log(host: ComputeHost, server: Server) -> str:
    name = domain.xml(host, server).findtext("name")
    log = host.folder / "log/qemu" / f"{name}.log"
    # The other lines are QEMU's command line.
    lines = [
        line
        for line in log.read_text().splitlines()
        if line.startswith("20") or "qemu-system" in line
    ]
    return "\n".join(lines[-LINES:])


def qemu_version(host: ComputeHost, server: Server) -> tuple[int, ...]:
    text = domain.monitor(host, server, "info version")
    return tuple(map(int, re.findall(r"\d+", text)[:2]))
