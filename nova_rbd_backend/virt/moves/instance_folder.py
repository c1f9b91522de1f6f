# SPDX-License-Identifier: Apache-2.0

"""Remove an instance's folder from a host that the instance has left.

If the disks are in Ceph, Nova assumes that the hosts share the instance's
folder too, and keeps it: on the old host after an evacuation, and on the new
host after a reverted resize (Nova 26 to 34). There the folder is in the way
when the instance comes back (DestinationDiskExists). [workarounds]
ensure_libvirt_rbd_instance_dir_cleanup removes it, but does so at each hard
reboot too, with the console's log, and destroys a shared folder. This module
removes a folder only if its instance is on another host and no other host can
see the folder.
"""

import contextlib
import os
import re
import shutil
import threading
from collections.abc import Iterator
from typing import Any

import nova.conf
from nova.compute import task_states
from nova.virt.libvirt import utils as libvirt_utils
from oslo_log import log as logging

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

#: Only one host at a time can mount these. Other types count as shared.
LOCAL_FILESYSTEMS = frozenset(
    ("btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "xfs", "zfs")
)

#: Tables of what this host exports by NFS: exports(5), exportfs(8).
EXPORTS = ("/etc/exports", "/var/lib/nfs/etab")
_PATH = re.compile(rb'"/[^"]*"|/\S*').match
_OCTAL = re.compile(rb"\\([0-3][0-7]{2})")


# One value for each request; eventlet makes it local to the greenlet.
_scope = threading.local()


@contextlib.contextmanager
def left_to_nova() -> Iterator[None]:
    """Let remove_left_behind() do nothing within the block.

    In a live migration Nova finds out by a file whether the hosts share the
    folder, and removes it itself if they do not.
    """
    _scope.is_novas = True
    try:
        yield
    finally:
        del _scope.is_novas


def remove_left_behind(instance: Any) -> None:
    """Remove an instance's folder if the instance has left this host.

    If it cannot be removed, a warning says so.
    """
    if getattr(_scope, "is_novas", False):
        return
    # A resize is reverted on the host that the instance was resized to.
    reverted = instance.task_state == task_states.RESIZE_REVERTING
    if not reverted and instance.host == CONF.host:
        return
    folder = libvirt_utils.get_instance_path(instance)
    # After a resize on this same host Nova renames that folder to this one.
    if not os.path.isdir(folder) or os.path.exists(f"{folder}_resize"):
        return
    try:
        local = filesystem_type(folder) in LOCAL_FILESYSTEMS
        if not local or is_exported(folder):
            return
        shutil.rmtree(folder)
    except OSError as error:
        # Not raised: it would end a nova-compute that is starting (Nova 26 to
        # 34, init_host, _destroy_evacuated_instances), just for a folder.
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


def filesystem_type(path: str) -> str:
    """Return the type of the file system that a path is on; empty: not known.

    Asks the kernel for the path's mount. Other mounts may be hidden by later
    ones, and a btrfs subvolume has a device of its own.
    """
    fd = os.open(path, os.O_PATH)
    try:
        with open(f"/proc/self/fdinfo/{fd}", "rb") as facts:
            mount_id = dict(line.split()[:2] for line in facts)[b"mnt_id:"]
    finally:
        os.close(fd)
    # In bytes, because mount points need not be UTF-8.
    with open("/proc/self/mountinfo", "rb") as mounts:
        for line in mounts:
            # proc(5): id, parent, device, root, mount point, ... - type, ...
            before, _, after = line.partition(b" - ")
            if before.split()[0] == mount_id:
                return after.split()[0].decode()
    return ""


def is_exported(path: str) -> bool:
    """Return whether this host exports a path by NFS, in whole or in part.

    Only the kernel's NFS server is known, and only tables that nova-compute
    can read.
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
            # exports(5): in quotes, or with octal numbers for special bytes
            path = os.path.realpath(_unescaped(name.strip(b'"')))
            yield f"{path.rstrip('/')}/"


def _unescaped(name: bytes) -> str:
    """Return a path of which a table gives some bytes as octal numbers."""
    plain = _OCTAL.sub(lambda octal: bytes([int(octal[1], 8)]), name)
    return os.fsdecode(plain)
