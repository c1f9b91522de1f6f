# SPDX-License-Identifier: Apache-2.0

"""The old disks: set aside, put back, removed.

Under another name no guest is started with one of them by mistake: a
nova-compute that is configured for local disks finds none, and says so.
"""

import os
import re
import shutil
import stat
import subprocess

from nova_rbd_backend import errors
from nova_rbd_backend.convert import record

SUFFIX = ".nova-rbd-converted"
_LVM_SECONDS = 60
# Nova names them so: /dev/<volume group>/<volume>.
_VOLUME = re.compile(r"/dev/(?P<group>[^/]+)/(?P<volume>[^/]+)")


def aside(path: str) -> str:
    """Where an old disk is kept."""
    return f"{path}{SUFFIX}"


def where(path: str) -> str | None:
    """Where it is now; None: it is nowhere."""
    for place in (path, aside(path)):
        if os.path.exists(place):
            return place
    return None


def set_aside(path: str) -> None:
    """Set it aside; that was done: done."""
    if os.path.exists(path):
        _rename(path, aside(path))


def put_back(path: str) -> None:
    """Give it its name again; it has it: done.

    :raises ConversionError: it is not there
    """
    if os.path.exists(path):
        return
    if not os.path.exists(aside(path)):
        raise errors.ConversionError(
            f"{aside(path)} is not there: the old disk is lost, so there is "
            "no way back"
        )
    _rename(aside(path), path)


def remove(path: str) -> None:
    """Remove one that was set aside; gone: done."""
    kept = aside(path)
    if not os.path.exists(kept):
        return
    if _is_device(kept):
        _lvm("lvremove", "--force", *_names(kept))
        return
    os.unlink(kept)
    record.sync(os.path.dirname(kept))


def stamp(path: str) -> tuple[int, ...] | None:
    """What changes when the file does; None: a device tells nothing."""
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _rename(path: str, new: str) -> None:
    if _is_device(path):
        _lvm("lvrename", *_names(path), os.path.basename(new))
        return
    os.rename(path, new)
    record.sync(os.path.dirname(path))


def _is_device(path: str) -> bool:
    return stat.S_ISBLK(os.stat(path).st_mode)


def _names(path: str) -> tuple[str, ...]:
    found = _VOLUME.fullmatch(path)
    if found is None:
        raise errors.ConversionError(
            f"{path} is no logical volume: Nova has its own as "
            "/dev/<volume group>/<volume>"
        )
    return (f"{found['group']}/{found['volume']}",)


def _lvm(program: str, *words: str) -> None:
    command = [shutil.which(program) or f"/sbin/{program}", *words]
    try:
        done = subprocess.run(  # noqa: S603
            command,
            capture_output=True,
            text=True,
            timeout=_LVM_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise errors.ConversionError(f"{program}: {error}") from error
    if done.returncode:
        said = "; ".join(done.stderr.split("\n")).strip("; ")
        raise errors.ConversionError(f"{' '.join(command)}: {said}")
