# SPDX-License-Identifier: Apache-2.0

"""An open RBD image."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping

import rbd

from nova_rbd_backend import errors, names
from nova_rbd_backend.image_options import CONF_KEY
from nova_rbd_backend.storage.open_image import Layout, OpenImage, Snap

__all__ = ["Client", "Disk", "Layout", "Snap"]


#: Told how many objects of how many are done.
Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Client:
    """Who holds an image.

    :ivar address: of this one client, with its nonce
    :ivar lock_cookie: of its exclusive lock; None: it has none
    :ivar watches: has it open for writing, or had when it died
    """

    client_id: int
    address: str
    lock_cookie: str | None
    watches: bool


class Disk(OpenImage):
    """An image that Pool.open opened; of use only inside its ``with``."""

    def resize(self, size_bytes: int) -> None:
        """Grow; never shrinks. librbd: rbd_resize2."""
        with self._reach("resize"):
            self._image.resize(size_bytes, allow_shrink=False)

    def shrink(self, size_bytes: int) -> None:
        """Cut off what lies beyond; it is lost. librbd: rbd_resize2."""
        with self._reach("shrink"):
            self._image.resize(size_bytes, allow_shrink=True)

    # snaps

    def show_snap(self, snap: str) -> None:
        """Read the snap from now on. librbd: rbd_snap_set."""
        with self._reach("open", snap):
            self._image.set_snap(snap)

    def create_snap(self, snap: str) -> None:
        """Make a snap; one of that name is there: done.

        librbd: rbd_snap_create2.
        """
        with (
            contextlib.suppress(errors.SnapExists),
            self._reach("make a snap", snap),
        ):
            self._image.create_snap(snap)

    def protect_snap(self, snap: str) -> None:
        """Protect a snap, as Glance does with its own; protected: done.

        librbd: rbd_snap_protect.
        """
        with self._reach("protect a snap", snap):
            if not self._image.is_protected_snap(snap):
                self._image.protect_snap(snap)

    def remove_snap(self, snap: str) -> None:
        """Remove a snap, a protected one too; gone: done.

        A snap with clones goes to the snaps' trash until they are gone.
        librbd: rbd_snap_unprotect, rbd_snap_remove2.

        :raises DiskBusy: clones of the old format need it protected
        """
        with (
            contextlib.suppress(errors.SnapNotFound),
            self._reach("remove a snap", snap),
        ):
            if self._image.is_protected_snap(snap):
                self._image.unprotect_snap(snap)
            self._image.remove_snap(snap)

    def rollback(self, snap: str) -> None:
        """Make the head as the snap was. librbd: rbd_snap_rollback.

        :raises SnapNotFound: there is no such snap
        """
        with self._reach("roll back", snap):
            self._image.rollback_to_snap(snap)

    # parents and children

    def parent(self) -> names.SnapPath | None:
        """The snap it is a clone of; None: of none. librbd:
        rbd_get_parent.
        """
        with self._reach("get the parent"):
            try:
                spec = self._image.get_parent_image_spec()
            except rbd.ImageNotFound:
                return None
        return names.SnapPath(
            spec["pool_name"],
            spec["pool_namespace"],
            spec["image_name"],
            spec["snap_name"],
        )

    def children(self) -> tuple[names.ImagePath, ...]:
        """Clones of its snaps that are not in the trash themselves.

        librbd: rbd_list_children3.
        """
        with self._reach("list clones"):
            return tuple(
                names.ImagePath(
                    entry["pool"], entry["pool_namespace"], entry["image"]
                )
                for entry in self._image.list_children2()
                if not entry["trash"]
            )

    def flatten(self, progress: Progress | None = None) -> None:
        """Copy what it shares with its parent; no parent: done.

        The owner of its lock does it where there is one: a guest's QEMU.
        librbd: rbd_flatten_with_progress.

        :param progress: called in a thread of librbd
        """

        def note(done: int, total: int) -> int:
            if progress is not None:
                progress(done, total)
            return 0

        if self.parent() is not None:
            with self._reach("flatten"):
                self._image.flatten(on_progress=note)

    # metadata

    def metadata(self) -> dict[str, str]:
        """librbd: rbd_metadata_list."""
        with self._reach("list metadata"):
            return dict(self._image.metadata_list())

    def set_metadata(self, values: Mapping[str, str]) -> None:
        """Set all in one step; other keys stay. cls_rbd: metadata_set."""
        self.pool.set_metadata(self.image_id, values)

    def set_conf(self, name: str, value: str) -> None:
        """Set an option of librbd for this image, if there is such a one.

        librbd: rbd_metadata_set, which looks at what it means.

        :raises StorageFault: an image has no such option, or not this value
        """
        with self._reach(f"set {name} to {value} for"):
            self._image.metadata_set(f"{CONF_KEY}{name}", value)

    # bytes

    def write(self, data: bytes, offset: int) -> None:
        """librbd: rbd_write2."""
        with self._reach("write"):
            self._image.write(data, offset)

    def read(self, offset: int, length: int) -> bytes:
        """librbd: rbd_read2."""
        with self._reach("read"):
            return self._image.read(offset, length)

    def zero(self, offset: int, length: int) -> None:
        """Make it read as zeros, and free what can be.

        librbd: rbd_write_zeroes; rbd_discard leaves what is smaller than
        rbd_discard_granularity_bytes as it is.
        """
        with self._reach("write"):
            self._image.write_zeroes(offset, length)

    def flush(self) -> None:
        """Wait until all that was written is stored. librbd: rbd_flush."""
        with self._reach("flush"):
            self._image.flush()

    def extents(self) -> list[tuple[int, int]]:
        """(offset, length) of what holds data, parents' data included.

        librbd: rbd_diff_iterate2.
        """
        return [
            (offset, length)
            for offset, length, exists in self._diff(None)
            if exists
        ]

    def changes(self, since: str) -> list[tuple[int, int]]:
        """(offset, length) of what was written or discarded since a snap.

        librbd: rbd_diff_iterate2.

        :raises SnapNotFound: there is no such snap
        """
        return [(offset, length) for offset, length, _ in self._diff(since)]

    def _diff(self, since: str | None) -> list[tuple[int, int, bool]]:
        found: list[tuple[int, int, bool]] = []

        def note(offset: int, length: int, exists: bool) -> None:
            found.append((offset, length, exists))

        with self._reach("list extents", since):
            self._image.diff_iterate(
                0, self._image.size(), since, note, whole_object=True
            )
        return found

    def clients(self) -> tuple[Client, ...]:
        """Who holds its lock or has it open for writing, dead or alive.

        The lock as it was when this one was opened: librbd keeps it (16.2).
        librbd: rbd_watchers_list, rbd_list_lockers.
        """
        with self._reach("list the clients of"):
            watching = {
                int(entry["id"]): str(entry["addr"])
                for entry in self._image.watchers_list()
            }
            found = self._image.list_lockers()
        # 16.2: an empty list in place of the dict when there is none
        owners = {
            int(client.removeprefix("client.")): (cookie, address)
            for client, cookie, address in (found or {}).get("lockers", ())
        }
        ids = sorted(watching.keys() | owners.keys())
        return tuple(_client(i, watching.get(i), owners.get(i)) for i in ids)

    def watchers(self) -> tuple[str, ...]:
        """Addresses of the clients that have it open for writing.

        Ours too, when this one is. librbd: rbd_watchers_list.
        """
        with self._reach("list watchers"):
            return tuple(
                entry["addr"] for entry in self._image.watchers_list()
            )


def _client(
    client_id: int, watching: str | None, owner: tuple[str, str] | None
) -> Client:
    cookie, address = owner or (None, watching or "")
    return Client(client_id, address, cookie, watching is not None)
