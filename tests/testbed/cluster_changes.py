# SPDX-License-Identifier: Apache-2.0

"""The calls that change the cluster: where a process is made to die.

For processes that do nothing else: it changes storage's classes for good.
"""

from collections.abc import Callable, Mapping
from typing import Any

from nova_rbd_backend.storage import disk, pool

Changes = Mapping[type, tuple[str, ...]]

CHANGES: Changes = {
    pool.Pool: (
        "omap_swap",
        "clone",
        "create",
        "set_metadata",
        "remove",
        "trash_move",
        "trash_remove",
        "_rename_listed",
        "_set_id",
        "_remove_id",
        "lease",
        "end_lease",
    ),
    disk.Disk: (
        "resize",
        "create_snap",
        "protect_snap",
        "remove_snap",
        "flatten",
    ),
}
# Of a disk's content, which has as many as it has objects.
WRITES: Changes = {disk.Disk: ("write", "flush")}


def wrap(wrapped: Callable[[Any], Any], *parts: Changes) -> None:
    """Put what ``wrapped`` makes of each method in the method's place."""
    for part in parts:
        for door, methods in part.items():
            for name in methods:
                setattr(door, name, wrapped(getattr(door, name)))
