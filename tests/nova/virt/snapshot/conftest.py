# SPDX-License-Identifier: Apache-2.0

"""A guest whose agent answers, under a real QEMU."""

import contextlib
import uuid

import libvirt
import pytest

from tests.nova.virt.snapshot.agent import state_of
from tests.support import ceph_fixtures
from tests.support.guest_domain import FILE_DISK
from tests.testbed.process import wait_for

DOMAIN = """
<domain type='qemu'>
  <name>{name}</name><uuid>{uuid}</uuid>
  <memory unit='MiB'>128</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <features><acpi/></features>
  <cpu mode='custom'><model>qemu64</model></cpu>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    {disk}
    <channel type='unix'>
      <target type='virtio' name='org.qemu.guest_agent.0'/>
    </channel>
    <controller type='usb' model='none'/>
  </devices>
</domain>
"""

# Enough beside an OpenStack with guests of its own on the same two cores.
BOOT_SECONDS = 240

guest_image = ceph_fixtures.guest_image


@pytest.fixture(scope="module")
def compute_host():
    """A compute host for the guest of one file's tests."""
    with ceph_fixtures.started_host() as host:
        yield host


@pytest.fixture(scope="module")
def guest(compute_host, guest_image, tmp_path_factory):
    """A running guest whose agent answers."""
    disk = tmp_path_factory.mktemp("guest") / "disk"
    disk.write_bytes(guest_image.raw.read_bytes())
    connection = libvirt.open(compute_host.libvirt_uri)
    domain = connection.createXML(
        DOMAIN.format(
            name="frozen",
            uuid=uuid.uuid4(),
            disk=FILE_DISK.format(path=disk, dev="vda"),
        )
    )
    try:
        wait_for(
            "the agent answers", lambda: state_of(domain), BOOT_SECONDS, 0.5
        )
        yield domain
    finally:
        with contextlib.suppress(libvirt.libvirtError):
            domain.destroy()
        connection.close()


@pytest.fixture
def settings(compute_host, nova_conf, tmp_path):
    """The nova.conf of the killed nova-compute; our CONF is the same."""
    options = {
        "DEFAULT": {
            "instances_path": str(tmp_path / "instances"),
            "state_path": str(tmp_path),
            "host": "here",
        },
        "libvirt": {
            "virt_type": "qemu",
            "images_type": "rbd",
            "connection_uri": compute_host.libvirt_uri,
        },
    }
    path = tmp_path / "nova.conf"
    text = ""
    for group, values in options.items():
        nova_conf(group=None if group == "DEFAULT" else group, **values)
        text += f"[{group}]\n"
        text += "".join(f"{k} = {v}\n" for k, v in values.items())
    path.write_text(text)
    return path
