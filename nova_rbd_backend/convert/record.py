# SPDX-License-Identifier: Apache-2.0

"""What a conversion has to remember, in the instance's folder.

It goes where the old disks go: Nova deletes the folder with the instance.
"""

import contextlib
import dataclasses
import enum
import fcntl
import json
import os
from collections.abc import Iterator
from typing import Any

from nova_rbd_backend import errors

NAME = "nova-rbd-convert.json"


class Stage(enum.StrEnum):
    """MIRRORING: a guest's disks are copied while it runs; it uses the old.

    SWITCHING: a running guest is led over, or its disks are compared.
    CONVERTED: all is on RBD and was compared; the old disks are kept.
    """

    MIRRORING = "mirroring"
    SWITCHING = "switching"
    CONVERTED = "converted"


@dataclasses.dataclass(frozen=True)
class OldDisk:
    """A local disk, as it was.

    :ivar element: its <disk> in the domain
    :ivar verified: it was compared with the one in Ceph
    :ivar draft: of a running guest's disk: its name while it is copied
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
            return _decoded(json.load(file))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise errors.ConversionError(f"read {path}: {error}") from error


def _decoded(found: dict[str, Any]) -> Record:
    return Record(
        found["instance"],
        found["pool"],
        Stage(found["state"]),
        tuple(OldDisk(**disk) for disk in found["disks"]),
    )


def write(folder: str, record: Record) -> None:
    """Write it, wholly or not at all; it outlives a crash of the host."""
    path = os.path.join(folder, NAME)
    draft = f"{path}.tmp"
    with open(draft, "w") as file:
        json.dump(dataclasses.asdict(record), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.rename(draft, path)
    sync(folder)


def remove(folder: str) -> None:
    """Remove it; not there: done."""
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
    """Keep other runs from the same instance; ends with the process.

    :raises ConversionRefused: there is one, or no such folder
    """
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise errors.ConversionRefused(
            f"{folder}: {error.strerror}: the instance is not on this host, "
            "or instances_path of nova.conf is another one"
        ) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise errors.ConversionRefused(
            f"{folder}: another nova-rbd convert is at it: let it end"
        ) from error
    try:
        yield
    finally:
        os.close(fd)
