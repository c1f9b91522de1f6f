# SPDX-License-Identifier: Apache-2.0

"""The guest boots on a simulated host and keeps its counter."""

import contextlib
import json
import subprocess

import libvirt
import pytest
import rados
import rbd

from tests.support.guest_domain import CD_ROM, FILE_DISK, SECRET, domain_xml
from tests.testbed.ceph import rbd_view
from tests.testbed.guest import building as guest
from tests.testbed.guest import console as console_
from tests.testbed.guest import odd_images
from tests.testbed.guest.disk import run
from tests.testbed.host.compute_host import ComputeHost
from tests.testbed.process import wait_for

GIB = 1 << 30


@pytest.fixture
def disk(ceph, guest_image):
    """The guest image in vms/disk, grown to 1 GiB, written by nova."""
    with (
        rados.Rados(name="client.nova", conffile=str(ceph.conf)) as nova,
        nova.open_ioctx("vms") as vms,
    ):
        rbd.RBD().create(vms, "disk", GIB, old_format=False)
        with rbd.Image(vms, "disk") as image:
            image.write(guest_image.raw.read_bytes(), 0)
        yield "vms/disk"
        wait_for("nobody has the disk open", lambda: _unused(vms), 30)
        rbd.RBD().remove(vms, "disk")


def _unused(vms):
    with rbd_view.opened(vms, "disk") as image:
        return list(image.watchers_list()) == []


@pytest.fixture
def console(tmp_path):
    return tmp_path / "console.log"


@contextlib.contextmanager
def running(host, xml):
    """Start a domain, and destroy it afterwards."""
    connection = libvirt.open(host.libvirt_uri)
    domain = connection.createXML(xml)
    try:
        yield domain
    finally:
        # The test may have ended the domain or its host.
        with contextlib.suppress(libvirt.libvirtError):
            domain.destroy()
        connection.close()


def config_drive(folder):
    latest = folder / "drive" / "openstack" / "latest"
    latest.mkdir(parents=True)
    metadata = {"uuid": "a-uuid", "name": "a name"}
    (latest / "meta_data.json").write_text(json.dumps(metadata))
    iso = folder / "drive.iso"
    run(
        *("genisoimage", "-quiet", "-V", "config-2", "-R", "-J"),
        *("-o", iso, folder / "drive"),
    )
    return iso


def formatted_disks(folder):
    """Make an ephemeral disk and a swap disk, as files."""
    disks = {"vdb": folder / "ephemeral", "vdc": folder / "swap"}
    for path in disks.values():
        path.touch(0o600)
        with path.open("wb") as file:
            file.truncate(64 << 20)
    run("mkfs.ext4", "-q", "-L", "ephemeral0", disks["vdb"])
    run("mkswap", disks["vdc"])
    return disks


def test_guest_reports_its_disks(ceph, compute_host, disk, console, tmp_path):
    compute_host.set_secret(SECRET, "nova", ceph.key("nova"))
    more = CD_ROM.format(iso=config_drive(tmp_path))
    for dev, path in formatted_disks(tmp_path).items():
        more += FILE_DISK.format(dev=dev, path=path)
    xml = domain_xml(disk, ceph.settings, console, more)
    with running(compute_host, xml) as domain:
        marker = console_.wait_for_boot(console).markers[0]
        assert marker["boots"] == 1
        assert marker["counter"] == 0
        assert marker["disks"] == {
            "vda": {"bytes": GIB, "type": "", "label": ""},
            "vdb": {"bytes": 64 << 20, "type": "ext4", "label": "ephemeral0"},
            "vdc": {"bytes": 64 << 20, "type": "swap", "label": ""},
        }
        drive = wait_for(
            "the guest has read its config drive",
            lambda: console_.read(console).config_drive,
            20,
        )
        assert drive == {"uuid": "a-uuid", "name": "a name"}
        wait_for("the guest agent answers", lambda: _agent(domain), 30)
        domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
        wait_for("the guest powers off", lambda: not _exists(domain), 20)


def _exists(domain):
    return domain.UUIDString() in {
        d.UUIDString() for d in domain.connect().listAllDomains()
    }


def _agent(domain):
    try:
        return domain.fsInfo()
    except libvirt.libvirtError:
        return None


def test_counter_survives_a_crash_of_the_host(
    ceph, compute_host, disk, console
):
    xml = domain_xml(disk, ceph.settings, console)
    compute_host.set_secret(SECRET, "nova", ceph.key("nova"))
    with running(compute_host, xml):
        announced = console_.wait_for_counter(console, 40).counter
        compute_host.kill()
        assert compute_host.pids() == []
    compute_host.start()
    with running(compute_host, xml):
        second = console_.wait_for_boot(console, boots=2).markers[1]
        assert second["boots"] == 2
        assert second["counter"] >= announced
        assert second["missing"] == 0
        after = second["counter"] + 20
        seen = console_.wait_for_counter(console, after)
        assert seen.failed == ()


def test_guest_moves_live_to_another_host(ceph, compute_host, disk, console):
    second = ComputeHost(
        compute_host.folder.parent, 2, network=compute_host.network
    )
    xml = domain_xml(disk, ceph.settings, console)
    try:
        second.start()
        for host in (compute_host, second):
            host.set_secret(SECRET, "nova", ceph.key("nova"))
        with running(compute_host, xml) as domain:
            console_.wait_for_boot(console)
            flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER
            domain.migrateToURI3(second.migration_uri, {}, flags)
            assert compute_host.qemu_pids() == []
            assert len(second.qemu_pids()) == 1
            counter = console_.read(console).counter
            console_.wait_for_counter(console, counter + 20)
            second.stop()
    finally:
        second.destroy()
    assert second.pids() == []
    assert not second.folder.exists()


def test_same_path_on_two_hosts_is_two_folders(compute_host):
    second = ComputeHost(
        compute_host.folder.parent, 2, network=compute_host.network
    )
    try:
        second.start()
        state = str(compute_host.state_path / "file")
        compute_host.run(["touch", state], check=True)
        assert second.state_path == compute_host.state_path
        assert second.run(["test", "-e", state]).returncode == 1
        names = [
            host.run(["hostname"], capture_output=True, text=True).stdout
            for host in (compute_host, second)
        ]
        assert names == ["host1\n", "host2\n"]
    finally:
        second.destroy()


def test_unset_secret_is_gone(compute_host):
    compute_host.set_secret(SECRET, "nova", "AQ==")
    listing = ["virsh", "-q", "secret-list"]

    def listed():
        return compute_host.run(
            listing, capture_output=True, text=True, check=True
        ).stdout

    assert SECRET in listed()
    compute_host.unset_secret(SECRET)
    assert SECRET not in listed()


def test_image_is_built_once(guest_image):
    before = guest_image.raw.stat().st_mtime_ns
    again = guest.build()
    assert again.raw.stat().st_mtime_ns == before
    assert again.raw.stat().st_size == again.size_bytes <= 64 << 20


def test_odd_images_are_odd(tmp_path):
    corrupt = odd_images.corrupt_qcow2(tmp_path / "corrupt")
    assert _qemu_img_info(corrupt).returncode == 1
    leaking = odd_images.qcow2_with_host_file(tmp_path / "leaking")
    info = json.loads(_qemu_img_info(leaking).stdout)
    assert info["backing-filename"] == "/etc/hostname"
    big = odd_images.big_sparse_raw(tmp_path / "big")
    assert big.stat().st_size == 20 * GIB
    assert big.stat().st_blocks * 512 < 1 << 20


def _qemu_img_info(path):
    command = ["qemu-img", "info", "--output=json", str(path)]
    return subprocess.run(command, capture_output=True, text=True)
