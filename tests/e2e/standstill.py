# SPDX-License-Identifier: Apache-2.0

"""Why a guest is not heard of: itself, its console, or its disk?

A guest that is emulated (TCG) can be broken by a live migration. QEMU before
9.0 clears the dirty bits of pages that its TLB still lets the guest write to
unseen (mended by 03bfc2188f06, "physmem: Fix migration dirty bitmap coherency
with TCG memory access", which Debian's 7.2.22 lacks): what the guest writes
then is lost, if the page has been sent. Seen: a guest that waits on its only
CPU, with interrupts off, for its run queue's lock, whose release was lost, and
one that is idle for ever. The disk is well; the destination's QEMU writes to
it. Without Ceph and libvirt, on a busy machine: 4 of 116 migrations between
two QEMU 7.2.22, none of 175 between two 10.0.2.
"""

import os
import re
import subprocess
import time
from collections.abc import Callable

import rados
import rbd
from openstack.compute.v2.server import Server

from tests.e2e import domain
from tests.testbed.ceph import pools
from tests.testbed.guest import disk as disk_
from tests.testbed.host.compute_host import ComputeHost
from tests.testbed.whole import Testbed

LINES = 12
SAMPLES = 5
SAMPLE_SECONDS = 1.0
# Of the root disk; before the first partition, behind the boot record.
UNUSED_SECTOR = 128
# QEMU that loses no write of an emulated guest.
MENDED = (9, 0)
FAULTS = (
    *(AssertionError, AttributeError, LookupError, OSError, ValueError),
    *(subprocess.SubprocessError, rados.Error, rbd.Error),
)


def report(stack: Testbed, server: Server) -> str:
    """What there is to be seen, a section each; what fails says how."""
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
    """Is the guest one that QEMU has broken, and its disk well?

    Only if an old QEMU emulates it, it came by live migration, and its disk
    owes it nothing: each of its requests has ended, QEMU can write there, and
    others can read that. To be asked when its counter has not come on.
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
    """Let the guest's own QEMU write to its root disk, and read it elsewhere.

    To a sector that no partition has. A disk that takes none lets QEMU wait.

    :raises subprocess.SubprocessError: QEMU does not come back from it
    """
    disk = domain.xml(host, server).find("devices/disk[@device='disk']")
    device = disk.find("alias").get("name")
    qemu_io = f"qemu-io -d /machine/peripheral/{device}/virtio-backend"
    offset, length = UNUSED_SECTOR * disk_.SECTOR, disk_.SECTOR
    # Not what is there already.
    found = read(stack, root(host, server), offset, length)
    byte = (found[0] + 1 + os.urandom(1)[0] % 255) % 256
    for command in (f"write -P {byte} {offset} {length}", "flush"):
        domain.monitor(host, server, f'{qemu_io} "{command}"')
    written = read(stack, root(host, server), offset, length)
    return written == bytes([byte]) * length


def home(stack: Testbed, server: Server) -> ComputeHost:
    """The host that Nova says it is on."""
    name = stack.moves().where(server)
    return stack.host(int(name.removeprefix("host")))


def root(host: ComputeHost, server: Server) -> str:
    """Pool and name of the image of its first disk."""
    return next(name for name in domain.sources(host, server).values() if name)


def read(stack: Testbed, image: str, offset: int, length: int) -> bytes:
    """Bytes that lie on the cluster, over a new connection."""
    pool, _, name = image.partition("/")
    with (
        stack.cluster.admin() as connection,
        connection.open_ioctx(pool) as ioctx,
        rbd.Image(ioctx, name, read_only=True) as opened,
    ):
        return bytes(opened.read(offset, length))


def last_counter(stack: Testbed, image: str) -> int:
    """The highest number in the guest's ring on the disk; none: 0."""
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
    """The CPU's place and flags, some times."""
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
    """QEMU stops a guest when all its requests have ended (do_vm_stop)."""
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
    with stack.cluster.admin() as connection:
        for image in filter(None, domain.sources(host, server).values()):
            pool, _, name = image.partition("/")
            with (
                connection.open_ioctx(pool) as ioctx,
                rbd.Image(ioctx, name, read_only=True) as opened,
            ):
                locks = opened.list_lockers() or {"lockers": []}
                watchers = [w["addr"] for w in opened.watchers_list()]
                lines.append(
                    f"{image}: locked by {locks['lockers']}, "
                    f"watched by {watchers}"
                )
    return "\n".join(lines)


def _blocklist(stack: Testbed) -> object:
    with stack.cluster.admin() as connection:
        return pools.command(connection, "osd dump")["blocklist"]


def _qemu_log(host: ComputeHost, server: Server) -> str:
    name = domain.xml(host, server).findtext("name")
    log = host.folder / "log/qemu" / f"{name}.log"
    # The others are QEMU's command line.
    lines = [
        line
        for line in log.read_text().splitlines()
        if line.startswith("20") or "qemu-system" in line
    ]
    return "\n".join(lines[-LINES:])


def qemu_version(host: ComputeHost, server: Server) -> tuple[int, ...]:
    text = domain.monitor(host, server, "info version")
    return tuple(map(int, re.findall(r"\d+", text)[:2]))
