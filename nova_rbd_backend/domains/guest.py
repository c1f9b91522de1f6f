# SPDX-License-Identifier: Apache-2.0

"""The door to libvirt: the domain of one instance, and its block jobs."""

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

from nova_rbd_backend import errors


def _libvirt() -> Any:
    # When it is needed: nova-rbd has commands for hosts without it.
    return importlib.import_module("libvirt")


@contextlib.contextmanager
def _reach(what: str) -> Iterator[Any]:
    libvirt = _libvirt()
    try:
        yield libvirt
    except libvirt.libvirtError as error:
        raise errors.ConversionError(f"{what}: {error}") from error


def find(connection: Any, instance: str) -> "Guest | None":
    """The guest of an instance; None: libvirt has no such domain."""
    libvirt = _libvirt()
    try:
        return Guest(connection.lookupByUUIDString(instance))
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise errors.ConversionError(f"{instance}: {error}") from error


class Guest:
    """A domain of libvirt."""

    def __init__(self, domain: Any):
        self._domain = domain

    def is_active(self) -> bool:
        """Whether it runs, paused or not."""
        with _reach("look at the domain"):
            return bool(self._domain.isActive())

    def is_paused(self) -> bool:
        """Whether it stands still."""
        with _reach("look at the domain") as libvirt:
            state, _ = self._domain.state()
            return bool(state == libvirt.VIR_DOMAIN_PAUSED)

    def keeps_old_state(self) -> str | None:
        """What libvirt keeps that names the disks of now; None: nothing."""
        with _reach("look at the domain"):
            if self._domain.hasManagedSaveImage():
                return "its memory is saved: resume it, and stop it"
            if self._domain.snapshotNum():
                return "libvirt keeps snapshots of it: delete them with virsh"
        return None

    def xml(self) -> str:
        """What it is started with next time."""
        with _reach("read the domain") as libvirt:
            flags = libvirt.VIR_DOMAIN_XML_INACTIVE
            return str(
                self._domain.XMLDesc(flags | libvirt.VIR_DOMAIN_XML_SECURE)
            )

    def live_xml(self) -> str:
        """What it runs with."""
        with _reach("read the domain"):
            return str(self._domain.XMLDesc())

    def define(self, xml: str) -> None:
        """Set what it is started with next time."""
        with _reach("define the domain"):
            self._domain.connect().defineXML(xml)

    # of one that runs

    def pause(self) -> None:
        """Let it stand still; what it has written is out by then."""
        with _reach("pause the guest"):
            self._domain.suspend()

    def resume(self) -> None:
        """Let it run on; runs: done."""
        if self.is_paused():
            with _reach("resume the guest"):
                self._domain.resume()

    def change_medium(self, disk_xml: str) -> None:
        """Put another image into a drive, locked or not."""
        with _reach("change the medium") as libvirt:
            self._domain.updateDeviceFlags(
                disk_xml,
                libvirt.VIR_DOMAIN_AFFECT_LIVE
                | libvirt.VIR_DOMAIN_DEVICE_MODIFY_FORCE,
            )

    def mirror(self, dev: str, disk_xml: str) -> None:
        """Begin to copy a disk, and what is written to it meanwhile.

        Synchronously, so that it comes to an end beside a busy guest.
        libvirt: virDomainBlockCopy, which otherwise wants no persistent
        domain.
        """
        with _reach(f"mirror {dev}") as libvirt:
            self._domain.blockCopy(
                dev,
                disk_xml,
                flags=libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT
                | libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB
                | libvirt.VIR_DOMAIN_BLOCK_COPY_SYNCHRONOUS_WRITES,
            )

    def mirrored(self, dev: str) -> tuple[int, int] | None:
        """(bytes done, of how many); None: there is no such job."""
        with _reach(f"look at the copy of {dev}"):
            found = self._domain.blockJobInfo(dev)
        return (found["cur"], found["end"]) if found else None

    def pivot(self, dev: str) -> None:
        """Let the guest use the copy from now on."""
        with _reach(f"lead {dev} over") as libvirt:
            self._domain.blockJobAbort(
                dev, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT
            )

    def give_up(self, dev: str) -> bool:
        """End the copy, the guest stays where it is.

        :returns: whether there was one
        """
        if self.mirrored(dev) is None:
            return False
        with _reach(f"end the copy of {dev}"):
            self._domain.blockJobAbort(dev)
        return True
