# SPDX-License-Identifier: Apache-2.0

"""The pools that disks were ever made in, for whoever looks for a disk.

One RADOS object in the pool of libvirt_images_store; its omap has an entry for
each further pool, by its name, with the class it was added for. A class may go
from nova.conf: its disks are found all the same.
"""

import json
import socket
import time
from collections.abc import Iterable

from nova_rbd_backend import errors
from nova_rbd_backend.storage.cluster import once_more
from nova_rbd_backend.storage.pool import Pool

OBJECT = "nova_rbd_pools"


@once_more
def add(home: Pool, pool: str, storage_class: str) -> bool:
    """Remember a pool; known already: done.

    :param home: the pool of libvirt_images_store
    :returns: whether it is new
    """
    facts = {
        "class": storage_class,
        "host": socket.gethostname(),
        "added": int(time.time()),
    }
    return home.omap_swap(OBJECT, pool, None, json.dumps(facts))


@once_more
def names(home: Pool) -> tuple[str, ...]:
    """Names of the pools that were added."""
    return tuple(home.omap_get(OBJECT, ""))


def known(home: Pool, configured: Iterable[str]) -> tuple[str, ...]:
    """Names of all pools that may have disks, the home first, each once.

    :param configured: those of the classes in nova.conf
    """
    return tuple(dict.fromkeys((home.name, *configured, *names(home))))


@once_more
def missing(home: Pool, configured: Iterable[str]) -> tuple[str, ...]:
    """Names of added pools that the cluster has no more.

    :param configured: pools that are not looked at
    :raises ConfigError: one may not be read, so that its disks would be taken
        for missing
    """
    former = [name for name in names(home) if name not in configured]
    return tuple(name for name in former if not _is_there(home, name))


def _is_there(home: Pool, name: str) -> bool:
    try:
        home.cluster.pool(name).listed_id("")
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
def forget(home: Pool, name: str) -> None:
    """Strike a pool out; not there: done."""
    stored = home.omap_value(OBJECT, name)
    if stored is not None:
        home.omap_swap(OBJECT, name, stored.decode(), None)
