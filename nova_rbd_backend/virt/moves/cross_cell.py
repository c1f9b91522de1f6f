# SPDX-License-Identifier: Apache-2.0

"""Keep the only current disks in a resize from one cell to another.

Nova makes the disks anew in the other cell, the root disk from a temporary
snapshot. A confirmed resize deletes the disks of the old host, a reverted one
those of the new host (manager.py, _confirm_snapshot_based_resize_at_source,
_revert_snapshot_based_resize_at_dest; Nova 26 to 34). By an instance's UUID
alone, either host could delete the disks of both: the cells may have a pool in
common, or one may know the other's. So the disks that the move makes have its
UUID in their metadata.
"""

import contextlib
from typing import Any

from nova import exception
from nova.compute import task_states

from nova_rbd_backend import errors, metadata, names
from nova_rbd_backend.storage.disks.delete import ByMove
from nova_rbd_backend.virt import edge
from nova_rbd_backend.virt.pools import choice

# A host with Nova's own backend that finds the root disk makes this snap, and
# goes on with that disk (driver.py, _create_and_inject_local_root).
_SNAP = "nova-resize"


def begin(instance: Any) -> None:
    """Refuse to start here if disks of a moving instance are here already.

    They are the old host's, which it deletes later, or out of date. Does
    nothing in any other start.

    :raises nova.exception.StorageError: there is such a disk
    """
    # In a resize in the same cell, Nova does not call spawn().
    if getattr(instance, "task_state", None) != task_states.RESIZE_FINISH:
        return
    # The conductor gives us an instance without the migration context that
    # this host has stored (Instance.create() leaves None; Nova 26 to 34).
    # Without it, Nova would not flatten the root disk either.
    instance.obj_load_attr("migration_context")
    store = edge.store()

    def find() -> list[str]:
        store.read_pools()
        return [
            f"{pool}/{disk}"
            for pool, disks in store.disks_by_pool(instance.uuid).items()
            for disk in disks
            # What an attempt has left half made is undone.
            if not names.is_draft(disk)
        ]

    if found := edge.run(find):
        # Nova cuts a fault after 255 characters.
        raise exception.StorageError(
            reason=f"{found[0]} exists: if the other cell uses this pool, the "
            "server cannot move here; if an earlier move left the disk, move "
            "it to the trash. A hard reboot starts the server where it was"
        )


def to_delete(instance: Any) -> ByMove | None:
    """Return which disks go if a move is confirmed or reverted; None: no move.

    :raises nova.exception.StorageError: the new host uses the old disks
    """
    reverted = instance.task_state == task_states.RESIZE_REVERTING
    # The state in which the old host leaves the instance, until its part of
    # the resize is confirmed.
    confirmed = instance.task_state == task_states.RESIZE_MIGRATED
    if not (reverted or confirmed):
        return None
    move = choice.cross_cell_move(instance)
    if move is None:
        return None
    if confirmed:
        _require_left(instance, move)
    return ByMove(move, made=reverted)


def _require_left(instance: Any, move: str) -> None:
    """Refuse to delete a root disk that the new host has taken over."""
    root = str(names.DiskName(instance.uuid, "disk"))
    store = edge.store()

    def find() -> str | None:
        for pool in store.pool_names():
            with (
                contextlib.suppress(errors.NotFound),
                store.pool(pool).open(root) as disk,
            ):
                snaps = [snap.name for snap in disk.snaps()]
                made = disk.metadata().get(metadata.MOVE) == move
                if _SNAP in snaps and not made:
                    return f"{pool}/{root}"
        return None

    if (found := edge.run(find)) is not None:
        raise exception.StorageError(
            reason=f"{found} has snap {_SNAP}, as if the new host used it: if "
            "the two cells do not share that pool, remove the snap, and "
            "delete the old disks by hand"
        )
