# SPDX-License-Identifier: Apache-2.0

"""What libvirt keeps of the domains of a host, for their next start.

That is a domain's configuration, and the state of one that is suspended,
which has an XML of its own. A guest that runs is never touched: it has the
monitors' addresses from its connection to them, and the ones of the XML are
of use at its start only.
"""

import contextlib
import dataclasses
import enum
from collections.abc import Iterable, Iterator
from typing import Any

import libvirt
from lxml import etree

from nova_rbd_backend import errors

# Where an XML names none (libvirt's docs: formatdomain, network disks).
_DEFAULT_PORT = "6789"


class Where(enum.StrEnum):
    """What has the XML."""

    CONFIGURATION = "configuration"
    SAVED_STATE = "saved state"


@dataclasses.dataclass(frozen=True)
class RbdDisk:
    """A disk of a domain that is an RBD image.

    :ivar target: the guest's name of it, by which libvirt knows it
    :ivar image: pool/image, or pool/namespace/image
    :ivar monitors: (host, port) as the XML has them; none: QEMU takes those
        of its ceph.conf
    """

    target: str
    image: str
    user: str | None
    monitors: tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class Stored:
    """One XML that libvirt keeps of a domain."""

    domain: Any
    where: Where
    name: str
    uuid: str
    running: bool
    disks: tuple[RbdDisk, ...]

    def set_monitors(
        self, targets: Iterable[str], monitors: Iterable[tuple[str, str]]
    ) -> None:
        """Let these disks name other monitors; nothing else is changed.

        One disk after the other, so that nothing is lost that Nova changes
        meanwhile. libvirt: virDomainUpdateDeviceFlags for the configuration,
        virDomainManagedSaveDefineXML for a saved state.

        :raises errors.LibvirtFault: refused; or the domain is gone
        """
        wanted = list(monitors)
        with _libvirt(f"change the monitors of {self.name}"):
            if self.where is Where.SAVED_STATE:
                root = etree.fromstring(_saved_xml(self.domain))
                for disk in _elements(root, targets):
                    _replace_hosts(disk, wanted)
                self.domain.managedSaveDefineXML(_text(root))
                return
            root = etree.fromstring(_xml(self.domain))
            for disk in _elements(root, targets):
                _replace_hosts(disk, wanted)
                self.domain.updateDeviceFlags(
                    _text(disk), libvirt.VIR_DOMAIN_AFFECT_CONFIG
                )


def stored(connection: Any) -> Iterator[Stored]:
    """All that is kept of all domains, running or not; by name.

    A transient domain has nothing that outlives it.

    :raises errors.LibvirtFault: it cannot be read
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


def _stored(domain: Any) -> Iterator[Stored]:
    if not domain.isPersistent():
        return
    facts = (domain.name(), domain.UUIDString(), bool(domain.isActive()))
    disks = _disks(etree.fromstring(_xml(domain)))
    yield Stored(domain, Where.CONFIGURATION, *facts, disks)
    if domain.hasManagedSaveImage():
        disks = _disks(etree.fromstring(_saved_xml(domain)))
        yield Stored(domain, Where.SAVED_STATE, *facts, disks)


def _xml(domain: Any) -> str:
    return str(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))


def _saved_xml(domain: Any) -> str:
    # With the console's password, which would be lost otherwise.
    secure = libvirt.VIR_DOMAIN_SAVE_IMAGE_XML_SECURE
    return str(domain.managedSaveGetXMLDesc(secure))


def _disks(root: Any) -> tuple[RbdDisk, ...]:
    return tuple(
        RbdDisk(
            disk.find("target").get("dev"),
            disk.find("source").get("name"),
            _user(disk),
            tuple(
                (each.get("name", ""), each.get("port", _DEFAULT_PORT))
                for each in disk.findall("source/host")
            ),
        )
        for disk in root.findall("devices/disk[@type='network']")
        if disk.find("source[@protocol='rbd']") is not None
    )


def _user(disk: Any) -> str | None:
    # libvirt takes it in both places, and gives it back where it was.
    for path in ("auth", "source/auth"):
        if (found := disk.find(path)) is not None:
            return str(found.get("username"))
    return None


def _elements(root: Any, targets: Iterable[str]) -> Iterator[Any]:
    wanted = set(targets)
    for disk in root.findall("devices/disk"):
        if disk.find("target").get("dev") in wanted:
            yield disk


def _replace_hosts(disk: Any, monitors: Iterable[tuple[str, str]]) -> None:
    source = disk.find("source")
    for old in source.findall("host"):
        source.remove(old)
    new = [
        etree.Element("host", name=host, port=port) for host, port in monitors
    ]
    # Before what else is in there, as libvirt writes it.
    for at, host in enumerate(new):
        source.insert(at, host)


def _text(element: Any) -> str:
    return str(etree.tostring(element, encoding="unicode", with_tail=False))


@contextlib.contextmanager
def _libvirt(operation: str) -> Iterator[None]:
    try:
        yield
    except libvirt.libvirtError as error:
        raise errors.LibvirtFault(
            f"cannot {operation}: {error}: see that libvirtd runs and that "
            "this user may use it, as that of nova-compute may"
        ) from error
