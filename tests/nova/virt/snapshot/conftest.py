# SPDX-License-Identifier: Apache-2.0

"""A guest whose agent answers, under a real QEMU."""

import contextlib
import uuid

import libvirt
import pytest

from tests.nova.virt.snapshot.agent import state_of
from tests.support import ceph_fixtures
from tests.support.guest_domain import FILE_DISK
from tests.testbed.guest import console
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


guest_image = ceph_fixtures.guest_image


@pytest.fixture(scope="module")
def compute_host():
    """A compute host for the guest of one file's tests."""
    with ceph_fixtures.started_host() as host:
        yield host


class Guests:
    """Boots a guest whenever a test has left no usable one."""

    def __init__(self, uri, image, folder):
        self._connection = libvirt.open(uri)
        self._image = image
        self._disk = folder / "disk"
        self._domain = None

    def usable(self):
        """Return a running guest that is thawed, and whose agent answers."""
        if self._domain is None or state_of(self._domain) != "thawed":
            self._end()
            self._domain = self._boot()
        return self._domain

    def close(self):
        self._end()
        self._connection.close()

    def _boot(self):
        self._disk.write_bytes(self._image.raw.read_bytes())
        disk = FILE_DISK.format(path=self._disk, dev="vda")
        domain = self._connection.createXML(
            DOMAIN.format(name="frozen", uuid=uuid.uuid4(), disk=disk)
        )
        try:
            wait_for(
                "the agent answers",
                lambda: state_of(domain),
                console.LIMIT_SECONDS,
                0.5,
            )
        except BaseException:
            domain.destroy()
            raise
        return domain

    def _end(self):
        if self._domain is not None:
            with contextlib.suppress(libvirt.libvirtError):
                self._domain.destroy()  # unless a test did so


@pytest.fixture(scope="module")
def guests(compute_host, guest_image, tmp_path_factory):
    folder = tmp_path_factory.mktemp("guest")
    made = Guests(compute_host.libvirt_uri, guest_image, folder)
    yield made
    made.close()


@pytest.fixture
def guest(guests):
    """A running guest whose agent answers; tests may share it."""
    return guests.usable()


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
