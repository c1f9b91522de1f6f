# SPDX-License-Identifier: Apache-2.0

"""Let a guest move live only to a host that sees the same disks.

Nova compares the hosts' types of disks alone, so that a guest would be sent
to a host of another pool or cluster. The one thing of the destination's own
making that the source is told before is the name of the file by which it
finds out whether they share instances_path (LibvirtLiveMigrateData.filename,
26 to 34): so that tells which pool of which cluster the destination uses. A
host with the in-tree backend tells nothing, and ignores it.
"""

import hashlib
import os
import tempfile
import urllib.parse
from typing import Any

import nova.conf
from nova import exception
from nova.compute import utils as compute_utils

from nova_rbd_backend import names
from nova_rbd_backend.virt import rbd_utils

CONF = nova.conf.CONF

_MARK = "nova-rbd"
# With the rest of the name below 255 bytes, the longest for a file.
_LONGEST_POOL = 160


def make_test_file() -> str:
    """Make an empty file in instances_path that tells of our storage.

    :returns: its name
    """
    rbd = rbd_utils.RBDDriver()
    prefix = ",".join((_MARK, rbd.fsid(), _quoted(rbd.pool), ""))
    handle, path = tempfile.mkstemp(prefix=prefix, dir=CONF.instances_path)
    os.close(handle)
    return os.path.basename(path)


def check_source(instance: Any, filename: str) -> None:
    """Refuse to send a guest with disks here to where they are not.

    :param filename: of the destination's test file
    :raises nova.exception.MigrationPreCheckError: Nova then tries another
        host, or gives this as the reason
    """
    mark, *there = filename.split(",")
    if mark != _MARK or len(there) < 2:
        return
    rbd = rbd_utils.RBDDriver()
    here = [rbd.fsid(), _quoted(rbd.pool)]
    if there[:2] == here:
        return
    pools = rbd.pools_with_disks(instance.uuid)
    if not pools:
        return
    raise exception.MigrationPreCheckError(
        reason=f"its disks are in pool {' and '.join(pools)} of Ceph cluster "
        f"{here[0]}, where libvirt_images_store is pool {rbd.pool}, but that "
        f"of the destination is pool {urllib.parse.unquote(there[1])} of "
        f"cluster {there[0]}: "
        "libvirt_images_store and ceph.conf of the two hosts must agree"
    )


def check_destination(context: Any, instance: Any) -> None:
    """Refuse a guest whose root disk is not here.

    The pools of all storage classes are known here then, as each host says
    which it uses to all that have the same libvirt_images_store.

    :raises nova.exception.MigrationPreCheckError: see check_source
    """
    rbd = rbd_utils.RBDDriver()
    root = str(names.DiskName(instance.uuid, "disk"))
    pools = rbd.read_pools()
    # Each pool is asked, so that one that may not be read is found out now.
    rbd.pools_with_disks(instance.uuid)
    if rbd.pool_of(root, None) or compute_utils.is_volume_backed_instance(
        context, instance
    ):
        return
    raise exception.MigrationPreCheckError(
        reason=f"its disk {root} is not in pool {' or '.join(pools)} of Ceph "
        f"cluster {rbd.fsid()}, where this destination would look for it: the "
        "hosts do not share their storage"
    )


def _quoted(pool: str) -> str:
    """The pool's name, without what has a meaning in names of files."""
    quoted = urllib.parse.quote(pool, safe="")
    if len(quoted) <= _LONGEST_POOL:
        return quoted
    return hashlib.sha256(pool.encode()).hexdigest()
