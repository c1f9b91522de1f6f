# SPDX-License-Identifier: Apache-2.0

"""Keep a failed start from deleting disks that it has not made.

When a start fails, Nova deletes all disks of the instance if any of them was
missing before (driver.py:_create_image, ``created_disks``; Nova 26 to 34).
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from nova_rbd_backend.virt import edge
from nova_rbd_backend.virt.pools import choice

# By the instance's UUID; Nova starts an instance only once at a time.
_kept: dict[str, frozenset[str]] = {}


@contextlib.contextmanager
def scope(instance: Any) -> Iterator[None]:
    """Keep the disks that an instance has when it comes from another host.

    Sends no request for other instances, which have no disks yet.
    """
    if not choice.comes_from_elsewhere(instance):
        yield
        return
    store = edge.store()

    def ask() -> list[str]:
        # A start also finds, and may delete, disks in pools that are new to
        # this host.
        store.read_pools()
        return store.disks(instance.uuid)

    _kept[instance.uuid] = frozenset(edge.run(ask))
    try:
        yield
    finally:
        del _kept[instance.uuid]


def filter_for(instance: Any) -> Callable[[str], bool]:
    """Return a filter that tells by a disk's name if it may be deleted."""
    kept = _kept.get(instance.uuid, frozenset())
    return lambda disk: disk not in kept
