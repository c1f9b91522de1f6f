# SPDX-License-Identifier: Apache-2.0

"""Let a guest migrate live only to a host that sees the same disks.

Nova compares only the hosts' types of disks, and would send a guest to a host
with another pool or cluster. But before a migration the destination makes a
file in instances_path, by whose name the source finds out whether they share
that folder (LibvirtLiveMigrateData.filename, Nova 26 to 34). We put into the
name which pool of which cluster the destination uses. A host with the in-tree
backend does not do so, and ignores the name.
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
# It keeps the whole name below 255 bytes, the limit for a file's name.
_LONGEST_POOL = 160
# Of a longer name; each byte takes up to three characters when quoted.
_SHOWN_BYTES = 40


def make_test_file() -> str:
    """Make an empty file named after our cluster and pool; return its name."""
    prefix = ",".join((_MARK, *_here(), ""))
    handle, path = tempfile.mkstemp(prefix=prefix, dir=CONF.instances_path)
    os.close(handle)
    return os.path.basename(path)


def check_source(instance: Any, filename: str) -> None:
    """Refuse to send a guest with disks in Ceph to a host of other storage.

    :param filename: of the destination's test file
    :raises nova.exception.MigrationPreCheckError: Nova then tries another
        host, or gives this as the reason
    """
    mark, *there = filename.split(",")
    if mark != _MARK or len(there) < 3:
        return
    # The last part is mkstemp's.
    *_, pool, _ = there
    here = _here()
    if there[:2] != here[:2] and (pools := _pools_with_disks(instance)):
        raise exception.MigrationPreCheckError(
            reason=f"its disks are in pool {' and '.join(pools)} of Ceph "
            f"cluster {here[0]}, where libvirt_images_store is pool "
            f"{edge.settings().pool}, but that of the destination is pool "
            f"{urllib.parse.unquote(pool)} of cluster {there[0]}: "
            "libvirt_images_store and ceph.conf of the two hosts must agree"
        )


def check_destination(context: Any, instance: Any) -> None:
    """Refuse a guest whose root disk is in no pool that is known here.

    Pools of other hosts' storage classes are known too: each host registers
    its pools for all hosts with the same libvirt_images_store.

    :raises nova.exception.MigrationPreCheckError: see check_source
    """
    store = edge.store()
    root = str(names.DiskName(instance.uuid, "disk"))
    edge.run(store.read_pools)
    # It asks every pool, so that a pool that may not be read is noticed now.
    _pools_with_disks(instance)
    found = edge.run(lambda: store.pool_of(root))
    if found or compute_utils.is_volume_backed_instance(context, instance):
        return
    raise exception.MigrationPreCheckError(
        reason=f"its disk {root} is not in pool "
        f"{' or '.join(store.pool_names())} of Ceph cluster {_here()[0]}, "
        "where this destination would look for it: the hosts do not share "
        "their storage"
    )


def _here() -> list[str]:
    """Return the cluster's fsid and the pool, as the file's name has them."""
    store = edge.store()
    return [edge.run(store.cluster.fsid), *_quoted(store.settings.pool)]


def _pools_with_disks(instance: Any) -> list[str]:
    store = edge.store()
    found = edge.run(lambda: store.disks_by_pool(instance.uuid))
    return [pool for pool, disks in found.items() if disks]


def _quoted(pool: str) -> list[str]:
    """Return a pool's name in characters that a file's name can have.

    :returns: the name; or, if it is too long, its hash and how it begins
    """
    quoted = urllib.parse.quote(pool, safe="")
    if len(quoted) <= _LONGEST_POOL:
        return [quoted]
    begin = pool.encode()[:_SHOWN_BYTES].decode(errors="ignore")
    return [
        hashlib.sha256(pool.encode()).hexdigest(),
        f"{urllib.parse.quote(begin, safe='')}...",
    ]
