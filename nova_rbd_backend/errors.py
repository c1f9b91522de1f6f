# SPDX-License-Identifier: Apache-2.0

"""What can go wrong, as one tree.

::

    Error
    |-- ConfigError           options that cannot work
    |-- UnsupportedNova       too old, or its seams have another shape
    |-- NovaUnclear           which instances there are cannot be known
    |-- LibvirtFault          libvirt did not do what it was asked for
    |-- ConversionError       a local disk could not be brought into Ceph
    |   `-- ConversionRefused what is not converted, and was not touched
    `-- StorageError          what follows

    StorageError
    |-- InvalidLocation       not an rbd:// location that can be used here
    |-- LocationOfDisk        one that is an instance's disk, not an image
    |-- ClusterUnreachable    no connection: monitors, network, conf file
    |   |-- ConfFileNotFound
    |   |-- ConfFileInvalid
    |   `-- KeyringNotFound
    |-- ConnectionLost        an open connection died or was blocklisted
    |-- OperationTimedOut     the cluster did not answer in the limit
    |-- NotPermitted          cephx user or caps
    |-- NotFound
    |   |-- PoolNotFound
    |   |-- ImageNotFound
    |   |-- SnapNotFound
    |   `-- ObjectNotFound
    |-- AlreadyExists
    |   |-- ImageExists
    |   `-- SnapExists
    |-- DiskBusy              open elsewhere; names the watchers
    |   `-- DiskInUse         by a client that is alive, so no guest may start
    |-- HasSnaps              an image with snaps cannot be removed
    |-- MoveUnfinished        half-way into the trash, or out of it
    |-- NoSpace               full, nearfull or over its quota
    |-- NotSupported          by this image's features or this Ceph
    |-- Conflict              somebody else changed it meanwhile
    |   |-- BeingCreated      another thread of this process makes it now
    |   `-- TakenOver         another host made the disk in our place
    |-- SizeMismatch          a file to import changed, is cut short or too big
    `-- StorageFault          I/O error or what has no better name
"""

from collections.abc import Sequence


class Error(Exception):
    """Root of everything this package raises on purpose."""


class ConfigError(Error):
    """Options that cannot work; the text says which and how to mend it."""


class UnsupportedNova(Error):
    """A Nova that this backend was not made for, and would break."""


class NovaUnclear(Error):
    """Nova's API did not say, to a login that sees all, what it has."""


class LibvirtFault(Error):
    """What libvirt was asked for, and its own words."""


class ConversionError(Error):
    """A disk could not be brought into Ceph, or back; the text says why."""


class ConversionRefused(ConversionError):
    """It was not begun: nothing has changed."""


class StorageError(Error):
    """The base; facts are attributes, the text is made from them."""

    advice = "see the log of the Ceph cluster"

    def __init__(
        self,
        reason: str = "",
        *,
        operation: str = "",
        pool: str | None = None,
        image: str | None = None,
        snap: str | None = None,
    ):
        self.reason = reason
        self.operation = operation
        self.pool = pool
        self.image = image
        self.snap = snap
        super().__init__(self._text())

    @property
    def target(self) -> str:
        """``pool/image@snap`` as far as known."""
        text = "/".join(part for part in (self.pool, self.image) if part)
        return f"{text}@{self.snap}" if self.snap else text

    def _text(self) -> str:
        what = " ".join(part for part in (self.operation, self.target) if part)
        parts = (what, self.reason or type(self).__name__)
        said = ": ".join(part for part in parts if part)
        return f"{said} ({self.advice})"


class InvalidLocation(StorageError):
    advice = "only rbd://fsid/pool/image/snap of this cluster can be cloned"


class LocationOfDisk(StorageError):
    advice = (
        "whoever set it may have tried to get at that disk; make an image of"
        " a disk by image-create"
    )


class ClusterUnreachable(StorageError):
    advice = (
        "check that the monitors of the ceph.conf are up and can be reached"
        " from this host"
    )


class ConfFileNotFound(ClusterUnreachable):
    advice = "check that the configured ceph.conf exists and can be read"


class ConfFileInvalid(ClusterUnreachable):
    advice = "mend the ceph.conf: Ceph cannot read one of its lines"


class KeyringNotFound(ClusterUnreachable):
    advice = (
        "put the cephx user's keyring where the ceph.conf looks for it,"
        " readable by this service"
    )


class ConnectionLost(StorageError):
    advice = (
        "the connection is opened again on next use; if it goes on, look"
        " for this host in 'ceph osd blocklist ls'"
    )


class OperationTimedOut(StorageError):
    advice = (
        "check 'ceph health' for OSDs that are down or slow, and for a pool"
        " that is full (its quota, or OSDs): a write to that waits"
    )


class NotPermitted(StorageError):
    advice = "compare the cephx user's caps with those that etc/ documents"


class NotFound(StorageError):
    advice = "it may have been removed; check the name"


class PoolNotFound(NotFound):
    advice = "create the pool or mend its name in the configuration"


class ImageNotFound(NotFound):
    pass


class SnapNotFound(NotFound):
    pass


class ObjectNotFound(NotFound):
    pass


class AlreadyExists(StorageError):
    advice = "choose another name or remove what has it"


class ImageExists(AlreadyExists):
    pass


class SnapExists(AlreadyExists):
    pass


class DiskBusy(StorageError):
    """:ivar watchers: addresses of the clients that have it open."""

    advice = (
        "stop what has it open; a client that died is forgotten by Ceph"
        " after 30 s (osd_client_watch_timeout)"
    )

    def __init__(
        self,
        reason: str = "",
        *,
        watchers: Sequence[str] = (),
        operation: str = "",
        pool: str | None = None,
        image: str | None = None,
        snap: str | None = None,
    ):
        self.watchers = tuple(watchers)
        if self.watchers:
            reason = f"{reason or 'busy'}; open by {', '.join(watchers)}"
        super().__init__(
            reason, operation=operation, pool=pool, image=image, snap=snap
        )


class DiskInUse(DiskBusy):
    advice = (
        "it is alive: if it is the instance's guest on a host taken for dead,"
        " stop the guest or power the host off; if it is a tool such as 'rbd"
        " flatten', let it end; then start the instance again"
    )


class HasSnaps(StorageError):
    advice = "remove its snaps, or flatten the clones made of them, first"


class MoveUnfinished(StorageError):
    advice = "it is moved now, or a process died at it: it is tried again"


class NoSpace(StorageError):
    advice = "check 'ceph df' and the pool's quota; add OSDs or free space"


class NotSupported(StorageError):
    advice = "check the image's features and the version of Ceph"


class Conflict(StorageError):
    advice = "try again"


class BeingCreated(Conflict):
    advice = "wait until the other request for the same disk has ended"


class TakenOver(Conflict):
    advice = "two hosts built the same disk; keep one of the instances"


class SizeMismatch(StorageError):
    advice = "the source changed or is cut short; fetch it again"


class StorageFault(StorageError):
    pass
