# SPDX-License-Identifier: Apache-2.0

"""Which disks of a domain are converted, and the XML that results."""

import pytest
from lxml import etree

from nova_rbd_backend import errors
from nova_rbd_backend.domains import disk_xml

UUID = "c2b5996a-7661-423a-8ef6-d633493027d9"
FOLDER = f"/var/lib/nova/instances/{UUID}"
ACCESS = disk_xml.Access(
    "vms", (("10.0.0.1", "6789"), ("fd00::1", "3300")), "nova", "a-secret"
)

DOMAIN = f"""\
<domain type='kvm'>
  <name>instance-00000001</name>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='none' io='native'/>
      <source file='{FOLDER}/disk'/>
      <backingStore type='file'><source file='/base'/></backingStore>
      <target dev='vda' bus='virtio'/>
      <iotune><total_iops_sec>100</total_iops_sec></iotune>
      <address type='pci' slot='0x04'/>
    </disk>
    <disk type='block' device='disk'>
      <driver name='qemu' type='raw'/>
      <source dev='/dev/vg/{UUID}_disk.eph0'/>
      <target dev='vdb' bus='virtio'/>
    </disk>
    <disk type='network' device='disk'>
      <driver name='qemu' type='raw'/>
      <source protocol='rbd' name='volumes/volume-1'/>
      <target dev='vdc' bus='virtio'/>
    </disk>
    <disk type='block' device='disk'>
      <driver name='qemu' type='raw'/>
      <source dev='/dev/sdx'/>
      <target dev='vdd' bus='virtio'/>
    </disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='/var/lib/nova/mnt/1/volume-2'/>
      <target dev='vde' bus='virtio'/>
    </disk>
    <disk type='file' device='cdrom'>
      <target dev='hdb' bus='ide'/>
    </disk>
    <disk type='file' device='cdrom'>
      <driver name='qemu' type='raw'/>
      <source file='{FOLDER}/disk.config'/>
      <target dev='hda' bus='ide'/>
      <readonly/>
    </disk>
  </devices>
</domain>
"""


@pytest.fixture
def disks():
    return disk_xml.local_disks(DOMAIN, UUID, FOLDER)


def test_local_disks_are_found_without_volumes(disks):
    found = [(d.name, d.dev, d.format, d.is_cdrom) for d in disks]
    assert found == [
        ("disk", "vda", "qcow2", False),
        ("disk.eph0", "vdb", "raw", False),
        ("disk.config", "hda", "raw", True),
    ]


def test_xml_with_disks_on_rbd(disks):
    xml = disk_xml.with_rbd(DOMAIN, UUID, disks, ACCESS)

    assert disk_xml.local_disks(xml, UUID, FOLDER) == []
    assert disk_xml.rbd_disks(xml, "vms", UUID) == {
        "disk": "vda",
        "disk.eph0": "vdb",
        "disk.config": "hda",
    }
    disk = etree.fromstring(xml).find("devices/disk")
    assert dict(disk.find("driver").attrib) == {
        "name": "qemu",
        "type": "raw",
        "cache": "none",
    }
    assert disk.find("backingStore") is None
    assert disk.find("iotune/total_iops_sec").text == "100"
    assert disk.find("address").get("slot") == "0x04"
    assert disk.find("auth").get("username") == "nova"
    hosts = [(h.get("name"), h.get("port")) for h in disk.iter("host")]
    assert hosts == [("10.0.0.1", "6789"), ("fd00::1", "3300")]


def test_xml_is_the_same_after_rbd_and_back(disks):
    xml = disk_xml.with_rbd(DOMAIN, UUID, disks, ACCESS)
    elements = {disk.name: disk.element for disk in disks}

    back = disk_xml.with_local(xml, "vms", UUID, elements)

    assert etree.canonicalize(back) == etree.canonicalize(DOMAIN)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("type='qcow2'", "type='vmdk'", "its format is vmdk"),
        ("<backingStore", "<encryption format='luks'/><backingStore", "crypt"),
        (f"{FOLDER}/disk'", f"{FOLDER}/disk.rescue'", "being rescued"),
        (f"{FOLDER}/disk'", f"{FOLDER}/other'", "no disk the name"),
        ("disk.eph0'", "disk.eph0-dmcrypt'", "encrypted"),
    ],
)
def test_refused(old, new, why):
    with pytest.raises(errors.ConversionRefused, match=why):
        disk_xml.local_disks(DOMAIN.replace(old, new, 1), UUID, FOLDER)


def test_name_of_a_logical_volume_is_unescaped():
    xml = DOMAIN.replace(f"{UUID}_disk.eph0", f"{UUID}_disk__odd")
    with pytest.raises(errors.ConversionRefused, match="'disk_odd'"):
        disk_xml.local_disks(xml, UUID, FOLDER)


def test_ready_mirrors():
    ready = "<mirror type='network' ready='yes'/><target dev='vda'"
    assert disk_xml.ready_mirrors(DOMAIN) == set()
    xml = DOMAIN.replace("<target dev='vda'", ready)
    assert disk_xml.ready_mirrors(xml) == {"vda"}
    assert disk_xml.ready_mirrors(xml.replace("yes", "pivot")) == set()
