# SPDX-License-Identifier: Apache-2.0

"""The libvirt domain with which the tests start a guest on an RBD disk."""

import pathlib

SECRET = "5e5e5e5e-0000-4000-8000-000000000001"

DOMAIN = """
<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>128</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type><boot dev='hd'/></os>
  <features><acpi/></features>
  <cpu mode='custom'><model>qemu64</model></cpu>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='network' device='disk'>
      <driver name='qemu' type='raw' cache='writeback' discard='unmap'/>
      <auth username='nova'><secret type='ceph' uuid='{secret}'/></auth>
      <source protocol='rbd' name='{image}'>
        <host name='{mon_host}' port='{mon_port}'/>
      </source>
      <target dev='vda' bus='virtio'/>
    </disk>
    {more}
    <serial type='file'><source path='{console}' append='on'/></serial>
    <channel type='unix'>
      <target type='virtio' name='org.qemu.guest_agent.0'/>
    </channel>
    <controller type='usb' model='none'/>
  </devices>
</domain>
"""

CD_ROM = """
<disk type='file' device='cdrom'>
  <driver name='qemu' type='raw'/><source file='{iso}'/>
  <target dev='hda' bus='ide'/><readonly/>
</disk>
"""

FILE_DISK = """
<disk type='file' device='disk'>
  <driver name='qemu' type='raw'/><source file='{path}'/>
  <target dev='{dev}' bus='virtio'/>
</disk>
"""


def domain_xml(
    image: str, settings, console: pathlib.Path, more: str = ""
) -> str:
    """Return the XML of a guest.

    :param image: its disk, as POOL/IMAGE
    :param settings: of the cluster; they have the address of its monitor
    :param console: the file that the guest's serial console is written to
    :param more: XML of further devices
    """
    return DOMAIN.format(
        name=image.replace("/", "-"),
        secret=SECRET,
        image=image,
        mon_host=settings.address,
        mon_port=settings.mon_port + (0 if settings.msgr2_only else 1),
        more=more,
        console=console,
    )
