# SPDX-License-Identifier: Apache-2.0

"""What a start that fails may not delete: disks that it has not made.

Nova deletes all of an instance's disks if any was missing before
(driver.py:_create_image, ``created_disks``; Nova 26 to 34).
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from nova_rbd_backend.virt import disk_place, rbd_utils

# By the instances' UUIDs; an instance is started once at a time.
_kept: dict[str, frozenset[str]] = {}


@contextlib.contextmanager
def scope(instance: Any) -> Iterator[None]:
    """Keep the disks that an instance of another host has now.

    Of no other instance are there any: nothing is asked.
    """
    if not disk_place.comes_from_elsewhere(instance):
        yield
        return
    rbd = rbd_utils.RBDDriver()
    # Nova finds, and deletes, the disks in pools that are new to this host.
    rbd.read_pools()
    _kept[instance.uuid] = frozenset(rbd.disks(instance.uuid))
    try:
        yield
    finally:
        del _kept[instance.uuid]


def may_be_deleted(instance: Any) -> Callable[[str], bool] | None:
    """Tell by a disk's name; None: all may."""
    kept = _kept.get(instance.uuid)
    return None if kept is None else lambda disk: disk not in kept
