# SPDX-License-Identifier: Apache-2.0

"""The XMLs that libvirt keeps of a host's domains, for their next start.

A domain has its configuration. A suspended domain also has a saved state, with
an XML of its own. A running guest is never touched: it has the monitors'
addresses from its connection to them, and reads those of an XML only at its
start.
"""

import contextlib
import dataclasses
import enum
from collections.abc import Collection, Iterator
from typing import Any

with contextlib.suppress(ImportError):  # see domains.connection
    import libvirt
from lxml import etree

from nova_rbd_backend import errors
from nova_rbd_backend.domains.disk_xml import Monitors, text

# Of a monitor without a port (libvirt's docs: formatdomain, network disks).
_DEFAULT_PORT = "6789"


class Where(enum.StrEnum):
    """What the XML belongs to."""

    CONFIGURATION = "configuration"
    SAVED_STATE = "saved state"


@dataclasses.dataclass(frozen=True)
class RbdDisk:
    """A disk of a domain that is an RBD image.

    :ivar target: the guest's name of the disk, by which libvirt knows it
    :ivar image: pool/image, or pool/namespace/image
    :ivar monitors: as the XML has them; if empty, QEMU takes the monitors of
        its ceph.conf
    """

    target: str
    image: str
    user: str | None
    monitors: Monitors


@dataclasses.dataclass(frozen=True)
class StoredXml:
    """One XML that libvirt keeps of a domain."""

    domain: Any
    where: Where
    name: str
    uuid: str
    running: bool
    disks: tuple[RbdDisk, ...]

    def set_monitors(self, targets: Collection[str], to: Monitors) -> None:
        """Let these disks name other monitors; nothing else is changed.

        In a configuration the disks are changed one by one, so that nothing
        is lost that Nova changes meanwhile.

        libvirt: virDomainUpdateDeviceFlags for a configuration,
        virDomainManagedSaveDefineXML for a saved state.

        :raises errors.LibvirtFault: libvirt refused, or the domain is gone
        """
        with _libvirt(f"change the monitors of {self.name}"):
            root = _xml(self.domain, self.where)
            for disk in root.findall("devices/disk"):
                if disk.find("target").get("dev") not in targets:
                    continue
                source = disk.find("source")
                for old in source.findall("host"):
                    source.remove(old)
                # Before all other elements, as libvirt writes them.
                for at, (host, port) in enumerate(to):
                    new = etree.Element("host", name=host, port=port)
                    source.insert(at, new)
                if self.where is Where.CONFIGURATION:
                    self.domain.updateDeviceFlags(
                        text(disk), libvirt.VIR_DOMAIN_AFFECT_CONFIG
                    )
            if self.where is Where.SAVED_STATE:
                self.domain.managedSaveDefineXML(text(root))


def stored_xmls(connection: Any) -> Iterator[StoredXml]:
    """Yield the XMLs of all persistent domains, running or not; by name.

    Nothing of a transient domain outlives it.

    :raises errors.LibvirtFault: they cannot be read
    """
    with _libvirt("list the domains"):
        domains = connection.listAllDomains()
        for domain in sorted(domains, key=lambda each: str(each.name())):
            try:
                found = list(_stored(domain))
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                    raise
                continue  # undefined meanwhile
            yield from found


def _stored(domain: Any) -> Iterator[StoredXml]:
    if not domain.isPersistent():
        return
    facts = (domain.name(), domain.UUIDString(), bool(domain.isActive()))
    for where in Where:
        if where is Where.CONFIGURATION or domain.hasManagedSaveImage():
            disks = _disks(_xml(domain, where))
            yield StoredXml(domain, where, *facts, disks)


def _xml(domain: Any, where: Where) -> Any:
    if where is Where.CONFIGURATION:
        return etree.fromstring(
            domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        )
    # With the console's password, which would be lost otherwise.
    secure = libvirt.VIR_DOMAIN_SAVE_IMAGE_XML_SECURE
    return etree.fromstring(domain.managedSaveGetXMLDesc(secure))


def _disks(root: Any) -> tuple[RbdDisk, ...]:
    return tuple(
        RbdDisk(
            disk.find("target").get("dev"),
            disk.find("source").get("name"),
            # libvirt accepts auth in both places, and returns it where it was.
            next(iter(disk.xpath("(. | source)/auth/@username")), None),
            tuple(
                (each.get("name", ""), each.get("port", _DEFAULT_PORT))
                for each in disk.findall("source/host")
            ),
        )
        for disk in root.findall("devices/disk[@type='network']")
        if disk.find("source[@protocol='rbd']") is not None
    )


@contextlib.contextmanager
def _libvirt(operation: str) -> Iterator[None]:
    try:
        yield
    except libvirt.libvirtError as error:
        raise errors.LibvirtFault(
            f"cannot {operation}: {error}: check that libvirtd runs, and that "
            "this user may use it, as the user of nova-compute may"
        ) from error
