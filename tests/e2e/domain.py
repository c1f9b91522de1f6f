# SPDX-License-Identifier: Apache-2.0

"""A guest as libvirt runs it: its XML, its disks, QEMU's monitor."""

from xml.etree import ElementTree

from openstack.compute.v2.server import Server

from tests.testbed.host.compute_host import ComputeHost

# QEMU's monitor waits for a disk without a limit.
ANSWER_SECONDS = 20


def xml(host: ComputeHost, server: Server) -> ElementTree.Element:
    """The running domain's description."""
    return ElementTree.fromstring(virsh(host, "dumpxml", server.id))


def sources(host: ComputeHost, server: Server) -> dict[str, str | None]:
    """The RBD image of each disk, by device name; None for a local file."""
    return {
        disk.find("target").get("dev"): disk.find("source").get("name")
        for disk in xml(host, server).findall("devices/disk")
    }


def boots_from(host: ComputeHost, server: Server) -> str | None:
    """The RBD image of the disk that comes first in the boot order."""
    for disk in xml(host, server).findall("devices/disk"):
        order = disk.find("boot")
        if order is not None and order.get("order") == "1":
            return disk.find("source").get("name")
    return None


def monitor(host: ComputeHost, server: Server, command: str) -> str:
    """Return the answer of QEMU's monitor to a command for people (HMP)."""
    return virsh(host, "qemu-monitor-command", server.id, "--hmp", command)


def virsh(host: ComputeHost, *words: str) -> str:
    """Run virsh on the host and return its output.

    :raises subprocess.SubprocessError: it failed, or exceeded the limit
    """
    done = host.run(
        ["virsh", *words],
        capture_output=True,
        text=True,
        check=True,
        timeout=ANSWER_SECONDS,
    )
    return done.stdout.strip()
