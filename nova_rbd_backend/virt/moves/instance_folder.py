# SPDX-License-Identifier: Apache-2.0

"""Leave no folder of an instance on a host that it has left.

Nova takes disks in Ceph for a sign that the instance's folder is shared too,
and keeps it: after an evacuation on the old host, after a reverted resize on
the new one (26 to 34), where it is in the way when the instance comes back
(DestinationDiskExists). [workarounds] ensure_libvirt_rbd_instance_dir_cleanup
removes it, but also at each hard reboot, with the console's log, and it
destroys a shared folder. Here a folder goes only when its instance lives
elsewhere, and when no other host can see it.
"""

import os
import re
import shutil
from collections.abc import Iterator
from typing import Any

import nova.conf
from nova.compute import task_states
from nova.virt.libvirt import utils as libvirt_utils
from oslo_log import log as logging

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

#: Of these a single host can have one mounted. Others count as shared.
LOCAL_FILESYSTEMS = frozenset(
    ("btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "xfs", "zfs")
)

#: What this host's own NFS server exports: exports(5), exportfs(8).
EXPORTS = ("/etc/exports", "/var/lib/nfs/etab")
_PATH = re.compile(rb'"/[^"]*"|/\S*').match


def remove_left_behind(instance: Any) -> None:
    """Remove its folder if the instance has left this host; else nothing.

    What can't be removed stays, with a WARNING.
    """
    folder = libvirt_utils.get_instance_path(instance)
    if not (_has_left(instance) and os.path.isdir(folder)):
        return
    if os.path.exists(f"{folder}_resize"):
        return  # A resize on this very host: Nova puts that one in its place.
    if filesystem_type(folder) not in LOCAL_FILESYSTEMS or is_exported(folder):
        return
    try:
        shutil.rmtree(folder)
    except OSError as error:
        # At its start nova-compute lets this end it (Nova 26 to 34,
        # init_host, _destroy_evacuated_instances): for a folder, too much.
        LOG.warning(
            "Could not remove %s, which the instance has left here: %s; it "
            "may come back to this host only when the folder is gone",
            folder,
            error,
            instance=instance,
        )
    else:
        LOG.info(
            "Removed %s: the instance has left this host",
            folder,
            instance=instance,
        )


def _has_left(instance: Any) -> bool:
    # A resize is reverted on the host that it went to.
    reverted = instance.task_state == task_states.RESIZE_REVERTING
    return bool(reverted or instance.host != CONF.host)


def filesystem_type(path: str) -> str:
    """The type of the file system that a path is on; empty: not known.

    By the mount's path: a btrfs subvolume has a device of its own.
    """
    path = os.path.realpath(path)
    longest, found = "", ""
    # In bytes: what others call their mounts need not be UTF-8.
    with open("/proc/self/mountinfo", "rb") as mounts:
        for line in mounts:
            # proc(5): id, parent, device, root, mount point, ... - type, ...
            before, _, after = line.partition(b" - ")
            point = _unescaped(before.split(b" ")[4])
            inside = f"{path}/".startswith(f"{point.rstrip('/')}/")
            # A later mount hides an earlier one.
            if inside and len(point) >= len(longest):
                longest, found = point, after.split()[0].decode()
    return found


def is_exported(path: str) -> bool:
    """Does this host export the path, what holds it or a part, by NFS?

    Other servers, and a table that nova-compute may not see, are not known.
    """
    path = f"{os.path.realpath(path)}/"
    return any(
        path.startswith(exported) or exported.startswith(path)
        for exported in _exported_folders()
    )


def _exported_folders() -> Iterator[str]:
    for table in EXPORTS:
        try:
            with open(table, "rb") as lines:
                found = [match[0] for line in lines if (match := _PATH(line))]
        except OSError:
            continue
        for name in found:
            # exports(5): quoted, or with octal numbers for what is special
            path = os.path.realpath(_unescaped(name.strip(b'"')))
            yield f"{path.rstrip('/')}/"


def _unescaped(name: bytes) -> str:
    """A path, of which a table gives some bytes as octal numbers."""
    return os.fsdecode(
        re.sub(
            rb"\\([0-3][0-7]{2})",
            lambda found: bytes([int(found[1], 8)]),
            name,
        )
    )
