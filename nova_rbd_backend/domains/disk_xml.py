# SPDX-License-Identifier: Apache-2.0

"""An instance's domain: which of its disks are local, and the same on RBD.

What says where a disk is and in which format is what Nova told libvirt. The
content is never asked: a guest can write there what it likes.
"""

import copy
import dataclasses
import os
from collections.abc import Iterator, Mapping
from typing import Any

from lxml import etree

from nova_rbd_backend import errors, names

FORMATS = ("raw", "qcow2")
_NOVA = {"nova": "http://openstack.org/xmlns/libvirt/nova/1.1"}
#: What of a local disk has no meaning for one on the network.
_LOCAL_PARTS = ("source", "backingStore", "mirror", "auth")


@dataclasses.dataclass(frozen=True)
class LocalDisk:
    """:ivar name: Nova's: ``disk``, ``disk.eph0``, ...
    :ivar dev: how the domain calls it: ``vda``
    :ivar path: of a file or a block device
    :ivar element: its <disk>, to be put back
    """

    name: str
    dev: str
    path: str
    format: str
    is_cdrom: bool
    element: str


@dataclasses.dataclass(frozen=True)
class Access:
    """How QEMU comes to the disks of a pool.

    :ivar monitors: (host, port) of each, IPv6 hosts without brackets
    """

    pool: str
    monitors: tuple[tuple[str, str], ...]
    user: str | None = None
    secret_uuid: str | None = None


def local_disks(xml: str, instance: str, folder: str) -> list[LocalDisk]:
    """The instance's own disks that this host keeps; volumes are none.

    :raises ConversionRefused: there is one that cannot be converted
    """
    return list(_local_disks(xml, instance, folder))


def _local_disks(xml: str, instance: str, folder: str) -> Iterator[LocalDisk]:
    for disk in _disks(_parsed(xml)):
        source = disk.find("source")
        path = None
        if source is not None:
            path = source.get("file") or source.get("dev")
        name = path and _name(path, instance, folder)
        if not path or not name:
            continue
        refusal = _refusal(disk, name, path)
        if refusal:
            raise errors.ConversionRefused(f"{path}: {refusal}")
        yield LocalDisk(
            name,
            _dev(disk),
            path,
            str(_driver(disk).get("type")),
            disk.get("device") == "cdrom",
            etree.tostring(disk, encoding="unicode", with_tail=False),
        )


def _name(path: str, instance: str, folder: str) -> str | None:
    """What Nova calls the disk; None: it is not the instance's own."""
    place, name = os.path.split(path)
    if os.path.realpath(place) == os.path.realpath(folder):
        return name
    prefix = names.DiskName.prefix(instance)
    if name.startswith(prefix):
        # Nova's Lvm.escape; the path of an encrypted one is dm-crypt's.
        return name.removeprefix(prefix).replace("__", "_")
    return None


def _refusal(disk: Any, name: str, path: str) -> str | None:
    if disk.find(".//encryption") is not None or path.endswith("-dmcrypt"):
        return "it is encrypted, which Nova cannot do with disks on RBD"
    if name == "disk.rescue":
        return "the instance is being rescued: end that first"
    if not names.is_novas(name):
        return f"Nova gives no disk the name {name!r}"
    found = _driver(disk).get("type")
    if found not in FORMATS:
        return f"its format is {found}, and not one of {', '.join(FORMATS)}"
    return None


def rbd_disks(xml: str, pool: str, instance: str) -> dict[str, str]:
    """Those on RBD already: dev, by Nova's name of the disk."""
    found = {}
    for disk in _disks(_parsed(xml)):
        image = _rbd_image(disk)
        prefix = f"{pool}/{names.DiskName.prefix(instance)}"
        if image and image.startswith(prefix):
            found[image.removeprefix(prefix)] = _dev(disk)
    return found


def ready_mirrors(live_xml: str) -> set[str]:
    """Devs of those whose copy is whole, and only follows the disk."""
    disks = _disks(_parsed(live_xml))
    return {
        _dev(d) for d in disks if d.find("mirror[@ready='yes']") is not None
    }


def with_rbd(
    xml: str, instance: str, disks: list[LocalDisk], access: Access
) -> str:
    """The domain with these local disks on RBD; all else is as it was."""
    root = _parsed(xml)
    by_dev = {disk.dev: disk for disk in disks}
    for element in _disks(root):
        if found := by_dev.get(_dev(element)):
            _replace(element, _on_rbd(element, found.name, instance, access))
    return _text(root)


def with_local(
    xml: str, pool: str, instance: str, elements: Mapping[str, str]
) -> str:
    """The domain with disks of the pool where they were before.

    :param elements: the old <disk>, by Nova's name of the disk
    """
    root = _parsed(xml)
    prefix = f"{pool}/{names.DiskName.prefix(instance)}"
    for element in _disks(root):
        name = (_rbd_image(element) or "").removeprefix(prefix)
        if name in elements:
            _replace(element, _parsed(elements[name]))
    return _text(root)


def rbd_disk(disk: LocalDisk, instance: str, access: Access) -> str:
    """The <disk> that takes a local one's place."""
    element = _parsed(disk.element)
    return _text(_on_rbd(element, disk.name, instance, access))


def owner(xml: str) -> tuple[str | None, str | None]:
    """Project and image, as Nova notes them in the domain."""
    root = _parsed(xml)
    project = root.find(".//nova:owner/nova:project", _NOVA)
    image = root.find(".//nova:root[@type='image']", _NOVA)
    return (
        None if project is None else project.get("uuid"),
        None if image is None else image.get("uuid"),
    )


def dev_of(element: str) -> str:
    """How the domain calls a disk, by its <disk>."""
    return _dev(_parsed(element))


def _on_rbd(element: Any, name: str, instance: str, access: Access) -> Any:
    disk = copy.deepcopy(element)
    disk.set("type", "network")
    for part in _LOCAL_PARTS:
        for found in disk.findall(part):
            disk.remove(found)
    driver = _driver(disk)
    driver.set("type", "raw")
    driver.attrib.pop("io", None)  # of files and block devices
    image = f"{access.pool}/{names.DiskName(instance, name)}"
    source = etree.Element("source", protocol="rbd", name=image)
    for host, port in access.monitors:
        etree.SubElement(source, "host", name=host, port=port)
    disk.insert(disk.index(driver) + 1, source)
    if access.user and access.secret_uuid:
        auth = etree.Element("auth", username=access.user)
        etree.SubElement(auth, "secret", type="ceph", uuid=access.secret_uuid)
        disk.insert(disk.index(driver) + 1, auth)
    return disk


def _replace(old: Any, new: Any) -> None:
    new.tail = old.tail
    old.getparent().replace(old, new)


def _rbd_image(disk: Any) -> str | None:
    source = disk.find("source")
    if source is None or source.get("protocol") != "rbd":
        return None
    return str(source.get("name"))


def _driver(disk: Any) -> Any:
    driver = disk.find("driver")
    if driver is None:
        driver = etree.Element("driver", name="qemu")
        disk.insert(0, driver)
    return driver


def _dev(disk: Any) -> str:
    return str(disk.find("target").get("dev"))


def _disks(root: Any) -> list[Any]:
    return list(root.findall("./devices/disk"))


def _parsed(xml: str) -> Any:
    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    return etree.fromstring(xml, parser)


def _text(element: Any) -> str:
    return str(etree.tostring(element, encoding="unicode", with_tail=False))
