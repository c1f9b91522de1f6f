# SPDX-License-Identifier: Apache-2.0

"""The door to libvirt: the domain of one instance, and its block jobs."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

with contextlib.suppress(ImportError):  # see domains.connection
    import libvirt

from nova_rbd_backend import errors

_END_SECONDS = 60.0
_TICK_SECONDS = 0.05


@contextlib.contextmanager
def _doing(what: str) -> Iterator[None]:
    try:
        yield
    except libvirt.libvirtError as error:
        raise errors.ConversionError(f"{what}: {error}") from error


def find(connection: Any, instance: str) -> "Guest | None":
    """Return the guest of an instance; None: libvirt has no such domain."""
    with _doing(instance):
        try:
            return Guest(connection.lookupByUUIDString(instance))
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise


class Guest:
    """A domain of libvirt.

    All methods raise ConversionError if libvirt fails.
    """

    def __init__(self, domain: Any):
        self._domain = domain

    @_doing("look at the domain")
    def is_active(self) -> bool:
        """Return whether the guest runs, paused or not."""
        return bool(self._domain.isActive())

    @_doing("look at the domain")
    def is_paused(self) -> bool:
        state, _ = self._domain.state()
        return bool(state == libvirt.VIR_DOMAIN_PAUSED)

    @_doing("look at the domain")
    def keeps_old_state(self) -> str | None:
        """Return what libvirt keeps that names today's disks, if anything."""
        if self._domain.hasManagedSaveImage():
            return "its memory is saved: resume it, and stop it"
        if self._domain.snapshotNum():
            return "libvirt keeps snapshots of it: delete them with virsh"
        return None

    @_doing("read the domain")
    def xml(self) -> str:
        """Return the configuration for the next start."""
        flags = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
        return str(self._domain.XMLDesc(flags))

    @_doing("read the domain")
    def live_xml(self) -> str:
        """Return the configuration that the guest runs with."""
        return str(self._domain.XMLDesc())

    @_doing("define the domain")
    def define(self, xml: str) -> None:
        """Set the configuration for the next start."""
        self._domain.connect().defineXML(xml)

    # of a guest that runs

    @_doing("pause the guest")
    def pause(self) -> None:
        """Pause the guest. By then all that it wrote is on its disks."""
        self._domain.suspend()

    @_doing("resume the guest")
    def resume(self) -> None:
        """Resume the guest. Does nothing if it is not paused."""
        if self.is_paused():
            self._domain.resume()

    @_doing("change the medium")
    def change_medium(self, disk_xml: str) -> None:
        """Put another image into a drive, even if the guest has locked it."""
        self._domain.updateDeviceFlags(
            disk_xml,
            libvirt.VIR_DOMAIN_AFFECT_LIVE
            | libvirt.VIR_DOMAIN_DEVICE_MODIFY_FORCE,
        )

    def mirror(self, dev: str, disk_xml: str) -> None:
        """Begin to copy a disk, together with what is written to it meanwhile.

        QEMU writes synchronously to both, so that the copying comes to an end
        even if the guest is busy.

        libvirt: virDomainBlockCopy; without TRANSIENT_JOB it refuses a
        persistent domain.
        """
        with _doing(f"mirror {dev}"):
            self._domain.blockCopy(
                dev,
                disk_xml,
                flags=libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT
                | libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB
                | libvirt.VIR_DOMAIN_BLOCK_COPY_SYNCHRONOUS_WRITES,
            )

    def copied_bytes(self, dev: str) -> int | None:
        """Return how many bytes are copied; None: no copy is being made."""
        with _doing(f"look at the copy of {dev}"):
            found = self._domain.blockJobInfo(dev)
        return found["cur"] if found else None

    def pivot(self, dev: str) -> None:
        """Switch the guest over to the copy."""
        pivot = libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT
        with _doing(f"switch {dev} over"):
            self._domain.blockJobAbort(dev, pivot)

    def give_up(self, dev: str) -> bool:
        """End the copying; the guest keeps its old disk.

        libvirt: virDomainBlockJobAbort; without ABORT_ASYNC it waits without a
        limit while Ceph does not answer.

        :returns: whether a copy was being made
        :raises ConversionError: also if the copying does not end in time
        """
        if self.copied_bytes(dev) is None:
            return False
        with _doing(f"end the copy of {dev}"):
            self._domain.blockJobAbort(
                dev, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_ASYNC
            )
        until = time.monotonic() + _END_SECONDS
        while self.copied_bytes(dev) is not None:
            if time.monotonic() > until:
                raise errors.ConversionError(
                    f"QEMU has not ended the copy of {dev} after "
                    f"{_END_SECONDS:g} s"
                )
            time.sleep(_TICK_SECONDS)
        return True
