# SPDX-License-Identifier: Apache-2.0

"""nova-rbd mons: domains of a real libvirtd, shut off, running, suspended."""

import re

import libvirt
import pytest

from nova_rbd_backend.storage.disks import provision
from tests.support.blank_disks import blank_disk
from tests.support.clients import connect
from tests.support.guest_domain import SECRET, domain_xml
from tests.testbed.guest import console as console_

MIB = 1 << 20
GONE = ("127.0.0.1", "1")
VOLUME = """
<disk type='network' device='disk'>
  <driver name='qemu' type='raw'/>
  <auth username='{user}'><secret type='ceph' uuid='{secret}'/></auth>
  <source protocol='rbd' name='{image}'>
    <host name='127.0.0.1' port='1'/>
  </source>
  <target dev='{dev}' bus='virtio'/>
</disk>
"""


@pytest.fixture
def libvirtd(ceph, compute_host, disks_deleted):
    """A connection to the host's libvirtd; removes its domains afterwards."""
    compute_host.set_secret(SECRET, "nova", ceph.key("nova"))
    connection = libvirt.open(compute_host.libvirt_uri)
    yield connection
    for domain in connection.listAllDomains():
        if domain.isActive():
            domain.destroy()
        domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE)
    connection.close()


@pytest.fixture
def tool(nova_rbd, compute_host):
    """nova-rbd, with the host's libvirtd in its nova.conf."""
    with nova_rbd.conf.open("a") as conf:
        conf.write(f"connection_uri = {compute_host.libvirt_uri}\n")
    return nova_rbd


@pytest.fixture
def mon(ceph):
    """Host and port of the monitor, as in a domain's XML."""
    (address,) = connect(ceph).mon_addresses()
    return address.host, str(address.port)


@pytest.fixture
def disk(vms, instance, disks_deleted):
    name = f"{instance}_disk"
    blank_disk(vms, name, MIB)
    return name


@pytest.fixture
def define(ceph, libvirtd, instance, tmp_path):
    """Return a function that defines the instance's domain.

    The domain's disk names the given monitors.
    """

    def define(*monitors, more="", image=None):
        image = image or f"vms/{instance}_disk"
        xml = domain_xml(image, ceph.settings, tmp_path / "console", more)
        hosts = "".join(
            f"<host name='{host}' port='{port}'/>" for host, port in monitors
        )
        xml = re.sub(r"<host name=[^>]*>", hosts, xml, count=1)
        name = f"<name>guest</name><uuid>{instance}</uuid>"
        return libvirtd.defineXML(re.sub(r"<name>.*</name>", name, xml))

    return define


def kept(domain):
    """Return the XML that the domain will start with next time.

    It has none of the numbers that libvirt assigns at each start.
    """
    return domain.XMLDesc(
        libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
    )


def named(xml):
    """Return the monitors of each disk, by the disk's name in the guest."""
    found = {}
    for disk in re.findall(r"<disk.*?</disk>", xml, re.DOTALL):
        hosts = re.findall(r"<host name='(.*?)' port='(.*?)'/>", disk)
        found[re.search(r"<target dev='(\w+)'", disk)[1]] = hosts
    return found


def shown(address):
    return ":".join(address)


def test_mends_a_domain_that_is_shut_off(tool, define, disk, instance, mon):
    domain = define(GONE)
    before = kept(domain)

    (row,) = tool.json("mons")

    assert row == {
        "Domain": "guest",
        "Instance": instance,
        "Running": False,
        "Kept in": "configuration",
        "State": "unusable",
        "Gone": [shown(GONE)],
        "Missing": [shown(mon)],
        "Reason": None,
    }
    assert shown(GONE) in tool.table("mons")
    (row,) = tool.json("mons", "--mend", "--dry-run")
    assert row["State"] == "would be mended"
    assert kept(domain) == before

    (row,) = tool.json("mons", "--mend")

    assert row["State"] == "mended"
    old, new = (f"<host name='{a}' port='{b}'/>" for a, b in (GONE, mon))
    assert kept(domain) == before.replace(old, new)
    assert tool.json("mons") == []
    (row,) = tool.json("mons", "--all")
    assert row["State"] == "current"


def test_one_of_two_monitors_is_gone(tool, define, disk, mon):
    domain = define(mon, GONE)

    (row,) = tool.json("mons")

    assert (row["State"], row["Missing"]) == ("outdated", [])
    tool.json("mons", "--mend")
    assert named(kept(domain)) == {"vda": [mon]}


def test_any_address_of_a_monitor_is_current(ceph, tool, define, disk):
    (addresses,) = connect(ceph).all_mon_addresses()
    for each in addresses:
        define((each.host, str(each.port)))
        assert tool.json("mons") == []


def test_leaves_other_disks_alone(
    ceph, tool, define, vms, instance, disk, mon
):
    """A volume, a disk of another user or instance, and a missing disk."""
    other = disk.replace(instance, instance[::-1].replace("-", "0"))
    volumes = (
        ("vdb", "nova", "volumes/volume-1"),
        ("vdc", "cinder", f"vms/{disk}"),
        ("vdd", "nova", f"vms/{other}"),
        ("vde", "nova", f"vms/{instance}_disk.eph0"),
    )
    more = "".join(
        VOLUME.format(dev=dev, user=user, image=image, secret=SECRET)
        for dev, user, image in volumes
    )
    domain = define(GONE, more=more)

    tool.json("mons", "--mend")

    theirs = {dev: [GONE] for dev, _, _ in volumes}
    assert named(kept(domain)) == {"vda": [mon], **theirs}


def test_ignores_domains_without_our_disks(tool, define, disk):
    define(GONE, image="volumes/volume-1")

    done = tool.run("mons", "--all", "-f", "json")

    assert tool.read(done) == []
    assert "all XMLs, 0, name" in done.stderr


def test_no_libvirtd(tool, compute_host):
    tool.conf.write_text(
        tool.conf.read_text().replace("libvirt-sock", "no-sock")
    )

    assert "no connection to libvirt at qemu:" in tool.refused("mons")


@pytest.fixture
def guest_disk(vms, instance, guest_image, disks_deleted):
    name = f"{instance}_disk"
    provision.import_disk(vms, name, str(guest_image.raw), 64 * MIB)
    return name


def test_running_and_suspended_guest(
    tool, define, guest_disk, mon, compute_host, tmp_path, libvirtd
):
    """A running guest goes on; the XML of its next start is mended."""
    console = tmp_path / "console"
    domain = define(mon, GONE)
    domain.create()
    counter = console_.wait_for_counter(console, 1).counter
    (pid,) = compute_host.qemu_pids()

    done = tool.run("mons", "--mend", "-f", "json")

    (row,) = tool.read(done)
    assert (row["Running"], row["State"]) == (True, "mended")
    assert "guests that run go on" in done.stderr
    assert compute_host.qemu_pids() == [pid]
    assert named(domain.XMLDesc())["vda"] == [mon, GONE]
    assert named(kept(domain))["vda"] == [mon]
    console_.wait_for_counter(console, counter + 2)

    # As Nova suspends a guest. Resume reads the saved XML, which has the old
    # monitors.
    domain.managedSave()
    (row,) = tool.json("mons")
    assert (row["Kept in"], row["State"]) == ("saved state", "outdated")

    (row,) = tool.json("mons", "--mend")

    assert row["State"] == "mended"
    assert named(domain.managedSaveGetXMLDesc())["vda"] == [mon]
    assert tool.json("mons") == []
    counter = console_.read(console).counter
    domain.create()
    assert not domain.hasManagedSaveImage()
    assert named(domain.XMLDesc())["vda"] == [mon]
    found = console_.wait_for_counter(console, counter + 2)
    assert len(found.markers) == 1, (
        "the guest booted again instead of resuming"
    )
