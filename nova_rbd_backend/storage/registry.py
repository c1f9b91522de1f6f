# SPDX-License-Identifier: Apache-2.0

"""Register the pools in which disks are made, so that every disk is found.

An object in the pool of libvirt_images_store has an omap entry for each other
pool: the pool's name, and the class for which it was added. So the disks of a
class that was removed from nova.conf are still found.
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
    """Register a pool, unless it is registered already.

    :param home: the pool of libvirt_images_store
    :returns: whether it is new
    :raises NoSpace: the pool is full, and no pool was ever registered in it
    """
    facts = {
        "class": storage_class,
        "host": socket.gethostname(),
        "added": int(time.time()),
    }
    # ``frees``: a pool that is full must not keep nova-compute waiting.
    return home.objects.omap_swap(
        OBJECT, pool, None, json.dumps(facts), frees=True
    )


@once_more
def names(home: Pool) -> tuple[str, ...]:
    """Return the names of the registered pools."""
    return tuple(home.objects.omap_get(OBJECT, ""))


@once_more
def missing(home: Pool, configured: Iterable[str]) -> tuple[str, ...]:
    """Return the names of registered pools that do not exist any more.

    :param configured: names of pools that are not checked
    :raises ConfigError: a pool may not be read, so that its disks would seem
        to be missing
    """
    gone = []
    for name in names(home):
        try:
            if name not in configured:
                home.beside(name).directory.listed_id("")
        except errors.PoolNotFound:
            gone.append(name)
        except errors.OperationTimedOut:
            continue  # It exists, but does not answer now.
        except errors.NotPermitted as error:
            raise errors.ConfigError(
                f"disks were made in pool {name!r} (a storage class that is "
                "not in nova.conf any more), which this host may not read: "
                "give its Ceph user the same caps there as in pool "
                f"{home.name!r}, or, once that pool has no disk, run "
                f"`rados -p {home.name} rmomapkey {OBJECT} {name}`"
            ) from error
    return tuple(gone)


@once_more
def remove(home: Pool, name: str) -> None:
    """Remove a pool from the registry, if it is registered."""
    stored = home.objects.omap_value(OBJECT, name)
    if stored is not None:
        home.objects.omap_swap(OBJECT, name, stored.decode(), None, frees=True)
