# SPDX-License-Identifier: Apache-2.0

"""The disks in an instance's domain: which are local, and the same on RBD.

Where a disk is and what format it has is taken from the domain, as Nova told
libvirt. The content is never asked, because a guest can write anything there.
"""

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lxml import etree

from nova_rbd_backend import errors, names

#: (host, port) of each monitor, IPv6 hosts without brackets.
Monitors = tuple[tuple[str, str], ...]

# Whose encryption QEMU uses for encrypted disks.
_ENGINE = "librbd"
_FORMATS = ("raw", "qcow2")
_NOVA = {"nova": "http://openstack.org/xmlns/libvirt/nova/1.1"}
#: The parts of a local disk's XML that mean nothing for a network disk.
_LOCAL_PARTS = ("source", "backingStore", "mirror", "auth")


@dataclasses.dataclass(frozen=True)
class LocalDisk:
    """A disk of an instance on its host.

    :ivar name: Nova's name: ``disk``, ``disk.eph0``, ...
    :ivar dev: the domain's name: ``vda``
    :ivar path: of a file or a block device
    :ivar element: the disk's XML, with which it can be restored
    """

    name: str
    dev: str
    path: str
    format: str
    is_cdrom: bool
    element: str


@dataclasses.dataclass(frozen=True)
class Access:
    """How QEMU reaches the disks of a pool."""

    pool: str
    monitors: Monitors
    user: str | None = None
    secret_uuid: str | None = None


def local_disks(xml: str, instance: str, folder: str) -> list[LocalDisk]:
    """Return the instance's own disks on this host, without volumes.

    :param folder: the instance's
    :raises ConversionRefused: a disk cannot be converted
    """
    found = []
    for disk in _disks(_parsed(xml)):
        path = str(disk.xpath("string(source/@file | source/@dev)"))
        name = _name(path, instance, folder)
        if not name:
            continue
        if refusal := _refusal(disk, name, path):
            raise errors.ConversionRefused(f"{path}: {refusal}")
        form = str(_driver(disk).get("type"))
        is_cdrom = disk.get("device") == "cdrom"
        found.append(
            LocalDisk(name, _dev(disk), path, form, is_cdrom, text(disk))
        )
    return found


def _name(path: str, instance: str, folder: str) -> str | None:
    """Return Nova's name of a disk; None: it is not the instance's own."""
    place, name = os.path.split(path)
    if os.path.realpath(place) == os.path.realpath(folder):
        return name
    prefix = names.DiskName.prefix(instance)
    if name.startswith(prefix):
        # Nova's Lvm.escape. An encrypted volume has the path of dm-crypt.
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
    if found not in _FORMATS:
        return f"its format is {found}, and not one of {', '.join(_FORMATS)}"
    return None


def rbd_disks(xml: str, pool: str, instance: str) -> dict[str, str]:
    """Return the disks that are on RBD: Nova's name -> the domain's name."""
    prefix = f"{pool}/{names.DiskName.prefix(instance)}"
    return {
        image.removeprefix(prefix): _dev(disk)
        for disk in _disks(_parsed(xml))
        if (image := _rbd_image(disk)).startswith(prefix)
    }


def rbd_images(xml: str, instance: str) -> list[names.ImagePath]:
    """Return the instance's own disks that are on RBD, in any pool."""
    prefix = names.DiskName.prefix(instance)
    found = [_rbd_image(disk) for disk in _disks(_parsed(xml))]
    paths = [names.ImagePath.of_qemu(image) for image in found]
    return [path for path in paths if path and path.image.startswith(prefix)]


def encryption(secret_uuid: str) -> Any:
    """Return how QEMU decrypts a disk: by librbd, as LUKS2.

    libvirt takes the engine since 7.9 (formatstorageencryption).

    :param secret_uuid: of libvirt's secret with the passphrase
    """
    element = etree.Element("encryption", format="luks2", engine=_ENGINE)
    etree.SubElement(element, "secret", type="passphrase", uuid=secret_uuid)
    return element


def encryption_secrets(xml: str) -> list[str]:
    """Return the UUIDs of the secrets of a domain's encrypted RBD disks.

    Without those of Cinder's volumes, which QEMU decrypts by itself.
    """
    if _ENGINE not in xml:
        return []
    path = f"source/encryption[@engine='{_ENGINE}']/secret"
    return [
        str(secret.get("uuid"))
        for disk in _disks(_parsed(xml))
        for secret in disk.iterfind(path)
    ]


def ready_mirrors(live_xml: str) -> set[str]:
    """Return the domain's names of disks with a whole copy that follows."""
    return {
        _dev(disk)
        for disk in _disks(_parsed(live_xml))
        if disk.find("mirror[@ready='yes']") is not None
    }


def with_rbd(
    xml: str, instance: str, disks: Iterable[LocalDisk], access: Access
) -> str:
    """Return the domain with these local disks on RBD."""
    new = {disk.dev: rbd_disk(disk, instance, access) for disk in disks}
    return _replaced(xml, lambda disk: new.get(_dev(disk)))


def with_local(
    xml: str, pool: str, instance: str, elements: Mapping[str, str]
) -> str:
    """Return the domain with the pool's disks replaced by the old ones.

    :param elements: Nova's name of a disk -> the XML of the old disk
    """
    prefix = f"{pool}/{names.DiskName.prefix(instance)}"
    return _replaced(
        xml, lambda disk: elements.get(_rbd_image(disk).removeprefix(prefix))
    )


def _replaced(xml: str, new_xml: Callable[[Any], str | None]) -> str:
    """Return the domain with other disks where ``new_xml`` has one."""
    root = _parsed(xml)
    for old in _disks(root):
        if found := new_xml(old):
            new = _parsed(found)
            new.tail = old.tail
            old.getparent().replace(old, new)
    return text(root)


def rbd_disk(local: LocalDisk, instance: str, access: Access) -> str:
    """Return the XML of the disk on RBD that replaces a local one."""
    disk = _parsed(local.element)
    disk.set("type", "network")
    for part in _LOCAL_PARTS:
        for found in disk.findall(part):
            disk.remove(found)
    driver = _driver(disk)
    driver.set("type", "raw")
    driver.attrib.pop("io", None)  # of files and block devices
    image = f"{access.pool}/{names.DiskName(instance, local.name)}"
    source = etree.Element("source", protocol="rbd", name=image)
    for host, port in access.monitors:
        etree.SubElement(source, "host", name=host, port=port)
    driver.addnext(source)
    if access.user and access.secret_uuid:
        auth = etree.Element("auth", username=access.user)
        etree.SubElement(auth, "secret", type="ceph", uuid=access.secret_uuid)
        driver.addnext(auth)
    return text(disk)


def owner(xml: str) -> tuple[str | None, str | None]:
    """Return the project and the image that Nova notes in the domain."""
    project, image = (
        _parsed(xml).xpath(f"string({path}/@uuid)", namespaces=_NOVA) or None
        for path in ("//nova:owner/nova:project", "//nova:root[@type='image']")
    )
    return project, image


def dev_of(element: str) -> str:
    """Return the domain's name of a disk, from the disk's XML."""
    return _dev(_parsed(element))


def _rbd_image(disk: Any) -> str:
    """Return pool/image; empty: the disk is not on RBD."""
    source = disk.find("source[@protocol='rbd']")
    return "" if source is None else str(source.get("name"))


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


def text(element: Any) -> str:
    """Return the XML of an element."""
    return str(etree.tostring(element, encoding="unicode", with_tail=False))
