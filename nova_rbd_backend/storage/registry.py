# SPDX-License-Identifier: Apache-2.0

"""The pools in which disks were ever made, so that a disk is always found.

One RADOS object in the pool of libvirt_images_store; its omap has an entry for
each further pool, by its name, with the class for which it was added. Disks of
a class that was removed from nova.conf are still found.
"""

import json
import socket
import time
from collections.abc import Iterable

from nova_rbd_backend import errors
from nova_rbd_backend.ceph.cluster import once_more
from nova_rbd_backend.ceph.pool import Pool

OBJECT = "nova_rbd_pools"


@once_more
def add(home: Pool, pool: str, storage_class: str) -> bool:
    """Register a pool. Registered already: done.

    :param home: the pool of libvirt_images_store
    :returns: whether it is new
    """
    facts = {
        "class": storage_class,
        "host": socket.gethostname(),
        "added": int(time.time()),
    }
    return home.objects.omap_swap(OBJECT, pool, None, json.dumps(facts))


@once_more
def names(home: Pool) -> tuple[str, ...]:
    """Return the names of the registered pools."""
    return tuple(home.objects.omap_get(OBJECT, ""))


@once_more
def missing(home: Pool, configured: Iterable[str]) -> tuple[str, ...]:
    """Return the names of registered pools that the cluster has no more.

    :param configured: pools that are not looked at
    :raises ConfigError: a pool may not be read: its disks would be taken for
        missing
    """
    former = [name for name in names(home) if name not in configured]
    return tuple(name for name in former if not _is_there(home, name))


def _is_there(home: Pool, name: str) -> bool:
    try:
        home.beside(name).directory.listed_id("")
    except errors.PoolNotFound:
        return False
    except errors.NotPermitted as error:
        raise errors.ConfigError(
            f"disks were made in pool {name!r} (a storage class that is not "
            "in nova.conf any more), which this host may not read: give its "
            f"Ceph user the same caps there as in pool {home.name!r}, or, "
            f"once that pool has no disk, run `rados -p {home.name} "
            f"rmomapkey {OBJECT} {name}`"
        ) from error
    return True


@once_more
def remove(home: Pool, name: str) -> None:
    """Remove a pool. Not registered: done."""
    stored = home.objects.omap_value(OBJECT, name)
    if stored is not None:
        home.objects.omap_swap(OBJECT, name, stored.decode(), None)
