# SPDX-License-Identifier: Apache-2.0

"""The old disks: renamed out of the way, given their names again, removed.

No guest is started by mistake with a disk that has another name: a
nova-compute that is configured for local disks finds none, and says so.
"""

import os
import re
import shutil
import stat

from nova_rbd_backend import errors
from nova_rbd_backend.convert import program, record

SUFFIX = ".nova-rbd-converted"
_LVM_SECONDS = 60
# Nova's path of a volume: /dev/<volume group>/<volume>.
_VOLUME = re.compile(r"/dev/([^/]+/[^/]+)")


def aside(path: str) -> str:
    """Return the path of an old disk that is out of the way."""
    return f"{path}{SUFFIX}"


def where(path: str) -> str:
    """Return where an old disk is now.

    :raises ConversionError: it does not exist under either name
    """
    for place in (path, aside(path)):
        if os.path.exists(place):
            return place
    raise errors.ConversionError(
        f"{aside(path)} is not there: the old disk is lost, so there is no "
        "way back"
    )


def set_aside(path: str) -> None:
    """Rename the old disk out of the way.

    Does nothing if that has been done already.
    """
    if os.path.exists(path):
        _rename(path, aside(path))


def put_back(path: str) -> None:
    """Give the old disk its name again. Does nothing if it has that name.

    :raises ConversionError: the old disk does not exist
    """
    if where(path) != path:
        _rename(aside(path), path)


def remove(path: str) -> None:
    """Remove an old disk that is out of the way. Does nothing without it."""
    kept = aside(path)
    if not os.path.exists(kept):
        return
    if _is_device(kept):
        _lvm("lvremove", "--force", _volume(kept))
    else:
        os.unlink(kept)
        record.sync(os.path.dirname(kept))


def stamp(path: str) -> tuple[int, ...] | None:
    """Return what changes when the file does; None: it is a device."""
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _rename(path: str, new: str) -> None:
    if _is_device(path):
        _lvm("lvrename", _volume(path), os.path.basename(new))
    else:
        os.rename(path, new)
        record.sync(os.path.dirname(path))


def _is_device(path: str) -> bool:
    return stat.S_ISBLK(os.stat(path).st_mode)


def _volume(path: str) -> str:
    found = _VOLUME.fullmatch(path)
    if found is None:
        raise errors.ConversionError(
            f"{path} is not a logical volume: Nova's are /dev/<volume "
            "group>/<volume>"
        )
    return found[1]


def _lvm(name: str, *words: str) -> None:
    command = [shutil.which(name) or f"/sbin/{name}", *words]
    program.output(command, _LVM_SECONDS)
