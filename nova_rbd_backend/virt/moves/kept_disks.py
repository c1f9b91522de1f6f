# SPDX-License-Identifier: Apache-2.0

"""Keep a failed start from deleting disks that it has not made.

When a start fails, Nova deletes all disks of the instance if any of them was
missing before (driver.py:_create_image, ``created_disks``; Nova 26 to 34).
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from nova_rbd_backend import errors
from nova_rbd_backend.virt import edge
from nova_rbd_backend.virt.pools import choice

# By the instance's UUID: tells by a disk's name if it may be deleted. Nova
# starts an instance only once at a time.
_filters: dict[str, Callable[[str], bool]] = {}


@contextlib.contextmanager
def scope(instance: Any) -> Iterator[None]:
    """Keep the disks that an instance has before its start.

    That is when it comes from another host, and if an earlier attempt to
    unshelve it was interrupted. Keeps all disks if a pool does not tell now
    which it has, since it may do so when they are deleted. Sends no request
    for other instances, whose disks Nova has deleted, or not made yet.
    """
    if not (
        choice.comes_from_elsewhere(instance) or choice.is_unshelved(instance)
    ):
        yield
        return
    store = edge.store()

    def ask() -> frozenset[str] | None:
        try:
            # A start also finds, and may delete, disks in pools that are new
            # to this host.
            store.read_pools()
            return frozenset(store.disks(instance.uuid))
        except errors.UNREACHED:
            return None

    found = edge.run(ask)
    _filters[instance.uuid] = lambda disk: (
        found is not None and disk not in found
    )
    try:
        yield
    finally:
        del _filters[instance.uuid]


def filter_for(instance: Any) -> Callable[[str], bool]:
    """Return a filter that tells by a disk's name if it may be deleted."""
    return _filters.get(instance.uuid, lambda _disk: True)
