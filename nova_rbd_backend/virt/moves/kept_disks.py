# SPDX-License-Identifier: Apache-2.0

"""Keep a start that fails from deleting disks that it has not made.

Nova deletes all of an instance's disks if any was missing before
(driver.py:_create_image, ``created_disks``; Nova 26 to 34).
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from nova_rbd_backend.virt import edge
from nova_rbd_backend.virt.pools import choice

# By the instances' UUIDs; an instance is started once at a time.
_kept: dict[str, frozenset[str]] = {}


@contextlib.contextmanager
def scope(instance: Any) -> Iterator[None]:
    """Keep the disks that an instance of another host has now.

    Asks nothing for other instances, which have no disks before they start.
    """
    if not choice.comes_from_elsewhere(instance):
        yield
        return
    store = edge.store()

    def ask() -> list[str]:
        # Nova finds, and deletes, disks in pools that are new to this host.
        store.read_pools()
        return store.disks(instance.uuid)

    _kept[instance.uuid] = frozenset(edge.run(ask))
    try:
        yield
    finally:
        del _kept[instance.uuid]


def filter_for(instance: Any) -> Callable[[str], bool]:
    """Return a filter by a disk's name: may it be deleted now?"""
    kept = _kept.get(instance.uuid, frozenset())
    return lambda disk: disk not in kept
