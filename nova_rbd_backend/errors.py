# SPDX-License-Identifier: Apache-2.0

"""The errors of this package, as one tree.

::

    Error
    |-- ConfigError           options that cannot work
    |-- UnsupportedNova       too old or too new, or a seam has changed
    |-- NovaUnclear           Nova's API does not tell which instances exist
    |-- LibvirtFault          libvirt refused a request
    |-- ConversionError       a local disk could not be brought into Ceph
    |   |-- ConversionRefused not begun: nothing has changed
    |   `-- UnreadableFile    the file is damaged
    `-- StorageError          the tree below

    StorageError
    |-- InvalidLocation       not an rbd:// location that can be used here
    |-- ForeignLocation       not the data of the image that has the location
    |-- ClusterUnreachable    no connection: monitors, network, conf file
    |   |-- ConfFileNotFound
    |   |-- ConfFileInvalid
    |   |-- KeyringNotFound
    |   `-- KeyUnreadable     of a type that this host's librados does not know
    |-- ConnectionLost        an open connection died or was blocklisted
    |-- OperationTimedOut     the cluster did not answer in time
    |-- NotPermitted          by the caps of the cephx user
    |-- ReadOnly              another client alone may write to the image
    |-- NotFound
    |   |-- PoolNotFound
    |   |-- ImageNotFound
    |   |-- SnapNotFound
    |   `-- ObjectNotFound
    |-- AlreadyExists
    |   |-- ImageExists
    |   `-- SnapExists
    |-- DiskBusy              open elsewhere; names the watchers
    |   `-- DiskInUse         open by a living client, so no guest may start
    |-- HasSnaps              an image with snaps cannot be removed
    |-- InGroup               an image in a group cannot be removed
    |-- MoveUnfinished        half-way into the trash, or out of it
    |-- NoSpace               full, nearfull or over its quota
    |-- NotSupported          by this image's features or this Ceph
    |-- NotEncrypted          a disk that should be
    |-- LayoutDiffers         Ceph keeps something in another way than expected
    |-- AnswerTooLong         more than one answer of Ceph may hold
    |-- Conflict              another process or thread changed it meanwhile
    |   |-- BeingCreated      another thread of this process makes it now
    |   `-- TakenOver         another process made or undid the image
    |-- SizeMismatch          a file to import has changed, or is too big
    `-- StorageFault          an I/O error, or an error without a class
"""

from collections.abc import Sequence
from typing import Any


class Error(Exception):
    """The root of the errors that this package raises on purpose."""


class ConfigError(Error):
    """Options that cannot work; the text tells which, and how to mend them."""


class UnsupportedNova(Error):
    """This version of Nova does not work with this backend."""


class NovaUnclear(Error):
    """Nova's API did not tell an administrator which instances exist."""


class LibvirtFault(Error):
    """libvirt refused a request; the text has its own words."""


class ConversionError(Error):
    """A disk could not be brought into Ceph, or back; the text tells why."""


class ConversionRefused(ConversionError):
    """The conversion was not begun: nothing has changed."""


class UnreadableFile(ConversionError):
    """The file is damaged, or is not in the format that it should be in."""


class StorageError(Error):
    """An error of Ceph; its text is made from the facts in its attributes."""

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
        """Return ``pool/image@snap``, as far as it is known."""
        text = "/".join(part for part in (self.pool, self.image) if part)
        return f"{text}@{self.snap}" if self.snap else text

    def _text(self) -> str:
        what = " ".join(part for part in (self.operation, self.target) if part)
        parts = (what, self.reason or type(self).__name__)
        said = ": ".join(part for part in parts if part)
        return f"{said} ({self.advice})"


class InvalidLocation(StorageError):
    advice = "only rbd://fsid/pool/image/snap of this cluster can be cloned"


class ForeignLocation(StorageError):
    advice = (
        "the user who set the location may have tried to read what is there;"
        " make an image of a disk by image-create"
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


class KeyUnreadable(ClusterUnreachable):
    advice = (
        "install librados of Ceph 20 or newer on this host, or have the key"
        " made anew: 'ceph mon set auth_allowed_ciphers aes,aes256k', then"
        " 'ceph auth rotate client.USER --key-type aes', and put the new key"
        " into the keyrings and the libvirt secret of all hosts"
    )


class ConnectionLost(StorageError):
    advice = (
        "the next use opens a new connection; if this happens again, look for"
        " this host in 'ceph osd blocklist ls'"
    )


class OperationTimedOut(StorageError):
    advice = (
        "check 'ceph health' for OSDs that are down or slow, and for a pool"
        " that is full (its quota, or its OSDs): writes to it wait; if it is"
        " healthy, run nova-rbd check: the cephx user may have no caps for"
        " OSDs"
    )


class NotPermitted(StorageError):
    advice = "compare the cephx user's caps with those that etc/ documents"


class ReadOnly(StorageError):
    advice = (
        "a client keeps the image's lock ('rbd lock ls'), for example a device"
        " that 'rbd device map --exclusive' made, or rbd-mirror writes to it;"
        " if the client has just died, try again"
    )


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
    advice = "choose another name, or remove what has this name"


class ImageExists(AlreadyExists):
    pass


class SnapExists(AlreadyExists):
    pass


class DiskBusy(StorageError):
    """:ivar watchers: addresses of the clients that have it open."""

    advice = (
        "stop the client that has it open; Ceph forgets a dead client after"
        " 30 s (osd_client_watch_timeout)"
    )

    def __init__(
        self, reason: str = "", *, watchers: Sequence[str] = (), **facts: Any
    ):
        self.watchers = tuple(watchers)
        if self.watchers:
            reason = f"{reason or 'busy'}; open by {', '.join(watchers)}"
        super().__init__(reason, **facts)


class DiskInUse(DiskBusy):
    advice = (
        "it is alive: if it is the instance's guest on a host taken for dead,"
        " stop the guest or power the host off; if it is a tool such as 'rbd"
        " flatten', let it end; then start the instance again"
    )


class HasSnaps(StorageError):
    advice = "remove its snaps, or flatten the clones made of them, first"


class InGroup(StorageError):
    advice = (
        "take it out of its group first: 'rbd group ls POOL' lists the groups,"
        " 'rbd group image ls POOL/GROUP' their images, and 'rbd group image"
        " rm POOL/GROUP POOL/IMAGE' takes an image out, or with '--image-id ID"
        " --image-pool POOL' one that is in the trash"
    )


class MoveUnfinished(StorageError):
    advice = "it is being moved, or a process died meanwhile; a purge retries"


class NoSpace(StorageError):
    advice = "check 'ceph df' and the pool's quota; add OSDs or free space"


class NotSupported(StorageError):
    advice = "check the image's features and the version of Ceph"


class NotEncrypted(StorageError):
    advice = "move it to the trash if it is left from an earlier attempt"


class LayoutDiffers(StorageError):
    advice = "install a release of this backend that knows this Ceph"


class AnswerTooLong(StorageError):
    advice = "it has too many snaps or locks; remove some of them"


class Conflict(StorageError):
    advice = "try again"


class BeingCreated(Conflict):
    advice = "wait until the other request for the same disk has ended"


class TakenOver(Conflict):
    advice = (
        "a delete has undone the attempt meanwhile, or another process has "
        "made the same image"
    )


class SizeMismatch(StorageError):
    advice = "the source changed or is cut short; fetch it again"


class StorageFault(StorageError):
    pass


#: Not due to one image: the same work on other images would fail, too.
UNREACHED = (ClusterUnreachable, ConnectionLost, OperationTimedOut)
