# SPDX-License-Identifier: Apache-2.0

"""The XML of an RBD disk, against expected files, for each kind of cluster.

The monitors' addresses come from a live connection to a real cluster: one with
IPv4, one with IPv6, and one that speaks only messenger v2.
"""

import base64
import json
import pathlib
import types

import pytest

from nova_rbd_backend.ceph import monitors
from nova_rbd_backend.virt import disk_xml
from tests.support.clusters import started_ceph

XML = pathlib.Path(__file__).with_name("xml")
INSTANCE = types.SimpleNamespace(uuid="8f1f4d1e-54f7-4a0b-9c7b-3f4b6a1f2f10")
SECRET = "457eb676-33da-42ec-9a8c-9293d545c337"
CLUSTERS = {
    "ipv4": {},
    "ipv6": {"address": "::1"},
    "msgr2-only": {"msgr2_only": True},
}


@pytest.fixture(scope="module", params=CLUSTERS)
def cluster(request):
    with started_ceph(osds=1, **CLUSTERS[request.param]) as cluster:
        yield cluster


@pytest.fixture
def rbd_conf(nova_conf, cluster):
    nova_conf(
        group="libvirt",
        images_rbd_pool="vms",
        images_rbd_ceph_conf=str(cluster.conf),
        rbd_user="nova",
        rbd_secret_uuid=SECRET,
        hw_disk_discard="unmap",
    )
    return nova_conf


def described(disk_name="disk", mapping=None, extra_specs=None, **how):
    """Return the XML that Nova would give to libvirt for one disk."""
    from nova_rbd_backend.virt import imagebackend

    mapping = mapping or {"bus": "virtio", "type": "disk", "dev": "vda"}
    image = imagebackend.Rbd(INSTANCE, disk_name, disk_info_mapping=mapping)
    return image.libvirt_info("writeback", extra_specs or {}, **how).to_xml()


def expected(name, cluster):
    """Return the expected XML, with the address of this cluster's monitor."""
    with cluster.admin() as admin:
        _, dump, _ = admin.mon_command(
            '{"prefix": "mon dump", "format": "json"}', b""
        )
    vector = json.loads(dump)["mons"][0]["public_addrs"]["addrvec"]
    address = {entry["type"]: entry["addr"] for entry in vector}
    host, _, port = address.get("v1", address.get("v2")).rpartition(":")
    text = (XML / f"{name}.xml").read_text()
    return text.replace("MON_HOST", host.strip("[]")).replace("MON_PORT", port)


def test_root_disk(rbd_conf, cluster):
    found = described(boot_order="1")
    assert found == expected("root", cluster)


def test_scsi_unit_and_qos(rbd_conf, cluster):
    found = described(
        mapping={"bus": "scsi", "type": "disk", "dev": "sda"},
        extra_specs={
            "quota:disk_read_iops_sec": "100",
            "quota:disk_total_bytes_sec": "20971520",
        },
        disk_unit=3,
    )
    assert found == expected("scsi-qos", cluster)


def test_config_drive(rbd_conf, cluster):
    found = described(
        "disk.config", {"bus": "sata", "type": "cdrom", "dev": "sda"}
    )
    assert found == expected("config-drive", cluster)


def test_disk_by_its_path_keeps_the_pool_of_the_path(rbd_conf, cluster):
    from nova_rbd_backend.virt import imagebackend

    name = f"{INSTANCE.uuid}_disk"
    image = imagebackend.Rbd(path=f"rbd:images/{name}")
    assert (image.disk.pool, image.disk.image) == ("images", name)
    assert image.path == f"rbd:images/{name}:id=nova:conf={cluster.conf}"


def test_all_monitors_without_authentication():
    from nova.virt.libvirt import config

    dump = {
        "mons": [
            mon(1, ("v2", "[2001:db8::2]:3300"), ("v1", "[2001:db8::2]:6789")),
            mon(0, ("v2", "192.0.2.1:3300"), ("v1", "192.0.2.1:6789")),
            mon(2, ("v2", "192.0.2.3:3300")),
        ]
    }
    found = [(mon.host, str(mon.port)) for mon in monitors.from_mon_dump(dump)]
    disk = config.LibvirtConfigGuestDisk()
    disk.source_device, disk.target_dev, disk.target_bus = (
        "disk",
        "vda",
        "virtio",
    )
    disk_xml.fill(disk, disk_xml.Source("vms", "image", found))
    assert disk.to_xml() == (XML / "three-monitors.xml").read_text()


def mon(rank, *addresses):
    vector = [{"type": kind, "addr": addr} for kind, addr in addresses]
    return {"rank": rank, "public_addrs": {"addrvec": vector}}


def test_libguestfs_is_given_brackets_and_the_key():
    key = b"0123456789abcdef"
    secret = types.SimpleNamespace(value=lambda: key)
    connection = types.SimpleNamespace(
        secretLookupByUUIDString={SECRET: secret}.__getitem__
    )
    source = disk_xml.Source(
        "vms", "image", [("2001:db8::2", "6789")], "nova", SECRET
    )
    found = disk_xml.guestfs_model(source, connection)
    assert found.servers == ["[2001:db8::2]:6789"]
    assert base64.b64decode(found.password) == key
    assert (found.pool, found.name, found.user) == ("vms", "image", "nova")
