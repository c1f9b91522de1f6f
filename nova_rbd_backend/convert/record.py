# SPDX-License-Identifier: Apache-2.0

"""The record of a conversion, in the instance's folder.

The record is where the old disks are. Nova deletes the folder together with
the instance.
"""

import contextlib
import dataclasses
import enum
import fcntl
import json
import os
from collections.abc import Iterator

from nova_rbd_backend import errors

NAME = "nova-rbd-convert.json"


class Stage(enum.StrEnum):
    """How far a conversion has come."""

    # A running guest's disks are copied; it uses the old disks.
    MIRRORING = "mirroring"
    # The guest is switched over, or its disks are compared.
    SWITCHING = "switching"
    # All disks are on RBD and were compared; the old disks are kept.
    CONVERTED = "converted"


@dataclasses.dataclass(frozen=True)
class OldDisk:
    """A local disk, as it was.

    :ivar element: its XML in the domain
    :ivar verified: it was compared with the disk in Ceph
    :ivar draft: the name of the copy of a running guest's disk, until the copy
        is whole
    """

    name: str
    path: str
    format: str
    size_bytes: int
    element: str
    verified: bool
    draft: str = ""


@dataclasses.dataclass(frozen=True)
class Record:
    """:ivar pool: where the disks are now"""

    instance: str
    pool: str
    state: Stage
    disks: tuple[OldDisk, ...]


def read(folder: str) -> Record | None:
    """Return the record of an earlier run; None: there is none.

    :raises ConversionError: it cannot be read
    """
    path = os.path.join(folder, NAME)
    try:
        with open(path) as file:
            found = json.load(file)
        return Record(
            found["instance"],
            found["pool"],
            Stage(found["state"]),
            tuple(OldDisk(**disk) for disk in found["disks"]),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise errors.ConversionError(f"read {path}: {error}") from error


def write(folder: str, record: Record) -> None:
    """Write the record, wholly or not at all.

    On return it outlives a crash of the host.
    """
    path = os.path.join(folder, NAME)
    draft = f"{path}.tmp"
    with open(draft, "w") as file:
        json.dump(dataclasses.asdict(record), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.rename(draft, path)
    sync(folder)


def remove(folder: str) -> None:
    """Remove the record, if there is one."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(folder, NAME))
    sync(folder)


def sync(folder: str) -> None:
    """Let the names in a folder outlive a crash of the host."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def sole_run(folder: str) -> Iterator[None]:
    """Keep other runs off the same instance, as long as this process lives.

    :raises ConversionRefused: another run is active, or there is no such
        folder
    """
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise errors.ConversionRefused(
            f"{folder}: {error.strerror}: the instance is not on this host, "
            "or instances_path of nova.conf is another one"
        ) from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise errors.ConversionRefused(
                f"{folder}: another nova-rbd convert works on it: let it end"
            ) from error
        yield
    finally:
        os.close(fd)
