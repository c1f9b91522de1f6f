# SPDX-License-Identifier: Apache-2.0

"""Let a guest move live only to a host that sees the same disks.

Nova only compares the hosts' types of disks, so that a guest could be sent to
a host of another pool or cluster. Before that the source gets one thing of the
destination's own making: the name of the file by which it finds out whether
they share instances_path (LibvirtLiveMigrateData.filename, 26 to 34). So that
name tells which pool of which cluster the destination uses. A host with the
in-tree backend tells nothing, and ignores the name.
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
from nova_rbd_backend.virt import edge

CONF = nova.conf.CONF

_MARK = "nova-rbd"
# With the rest of the name below 255 bytes, the longest for a file.
_LONGEST_POOL = 160


def make_test_file() -> str:
    """Make an empty file in instances_path whose name tells our storage.

    :returns: its name
    """
    prefix = ",".join((_MARK, *_here(), ""))
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
    here = _here()
    if there[:2] == here:
        return
    pools = _pools_with_disks(instance)
    if not pools:
        return
    raise exception.MigrationPreCheckError(
        reason=f"its disks are in pool {' and '.join(pools)} of Ceph cluster "
        f"{here[0]}, where libvirt_images_store is pool "
        f"{edge.settings().pool}, but that of the destination is pool "
        f"{urllib.parse.unquote(there[1])} of cluster {there[0]}: "
        "libvirt_images_store and ceph.conf of the two hosts must agree"
    )


def check_destination(context: Any, instance: Any) -> None:
    """Refuse a guest whose root disk is not here.

    The pools of all storage classes are known here then: each host registers
    those it uses for all hosts with the same libvirt_images_store.

    :raises nova.exception.MigrationPreCheckError: see check_source
    """
    store = edge.store()
    root = str(names.DiskName(instance.uuid, "disk"))
    edge.run(store.read_pools)
    # Asks each pool, so that a pool that may not be read is found out now.
    _pools_with_disks(instance)
    if edge.run(
        lambda: store.pool_of(root)
    ) or compute_utils.is_volume_backed_instance(context, instance):
        return
    raise exception.MigrationPreCheckError(
        reason=f"its disk {root} is not in pool "
        f"{' or '.join(store.pool_names())} of Ceph cluster {_here()[0]}, "
        "where this destination would look for it: the hosts do not share "
        "their storage"
    )


def _here() -> list[str]:
    """Return the cluster, and the pool as in names of files."""
    store = edge.store()
    return [edge.run(store.cluster.fsid), _quoted(store.settings.pool)]


def _pools_with_disks(instance: Any) -> list[str]:
    store = edge.store()
    found = edge.run(lambda: store.disks_by_pool(instance.uuid))
    return [pool for pool, disks in found.items() if disks]


def _quoted(pool: str) -> str:
    """Return the pool's name without characters special to file names."""
    quoted = urllib.parse.quote(pool, safe="")
    if len(quoted) <= _LONGEST_POOL:
        return quoted
    return hashlib.sha256(pool.encode()).hexdigest()
