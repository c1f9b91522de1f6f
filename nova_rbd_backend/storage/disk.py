# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""An open RBD image."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import rbd

from nova_rbd_backend import errors, names

if TYPE_CHECKING:
    from nova_rbd_backend.storage.cluster import Connection
    from nova_rbd_backend.storage.pool import Pool


@dataclasses.dataclass(frozen=True)
class Snap:
    """:ivar user: made by a user, not by the trash, a group or mirroring"""

    name: str
    size_bytes: int
    user: bool


class Disk:
    """An image that Pool.open opened; of use only inside its ``with``."""

    def __init__(
        self,
        pool: "Pool",
        connection: "Connection",
        image: rbd.Image,
        name: str,
    ):
        self.pool = pool
        self.name = name
        self._connection = connection
        self._image = image

    @contextlib.contextmanager
    def _reach(
        self, operation: str, snap: str | None = None
    ) -> Iterator[None]:
        with self.pool.cluster.reach(
            operation,
            self._connection,
            pool=str(self.pool),
            image=self.name,
            snap=snap,
        ):
            yield

    @property
    def image_id(self) -> str:
        """librbd: rbd_get_id."""
        with self._reach("get the id"):
            return self._image.id()

    def size_bytes(self) -> int:
        """librbd: rbd_get_size."""
        with self._reach("get the size"):
            return self._image.size()

    def object_bytes(self) -> int:
        """Size of the objects the image is cut into. librbd: rbd_stat."""
        with self._reach("get the object size"):
            return int(self._image.stat()["obj_size"])

    def resize(self, size_bytes: int) -> None:
        """Grow; never shrinks. librbd: rbd_resize2."""
        with self._reach("resize"):
            self._image.resize(size_bytes, allow_shrink=False)

    # snaps

    def snaps(self) -> tuple[Snap, ...]:
        """librbd: rbd_snap_list."""
        with self._reach("list snaps"):
            return tuple(
                Snap(
                    entry["name"],
                    entry["size"],
                    entry["namespace"] == rbd.RBD_SNAP_NAMESPACE_TYPE_USER,
                )
                for entry in self._image.list_snaps()
            )

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

    def flatten(self) -> None:
        """Copy what it shares with its parent; no parent: done.

        librbd: rbd_flatten.
        """
        if self.parent() is not None:
            with self._reach("flatten"):
                self._image.flatten()

    # metadata

    def metadata(self) -> dict[str, str]:
        """librbd: rbd_metadata_list."""
        with self._reach("list metadata"):
            return dict(self._image.metadata_list())

    def set_metadata(self, values: Mapping[str, str]) -> None:
        """Set all in one step; other keys stay. cls_rbd: metadata_set."""
        self.pool.set_metadata(self.image_id, values)

    # bytes

    def write(self, data: bytes, offset: int) -> None:
        """librbd: rbd_write2."""
        with self._reach("write"):
            self._image.write(data, offset)

    def read(self, offset: int, length: int) -> bytes:
        """librbd: rbd_read2."""
        with self._reach("read"):
            return self._image.read(offset, length)

    def discard(self, offset: int, length: int) -> None:
        """librbd: rbd_discard."""
        with self._reach("discard"):
            self._image.discard(offset, length)

    def flush(self) -> None:
        """Wait until all that was written is stored. librbd: rbd_flush."""
        with self._reach("flush"):
            self._image.flush()

    def extents(self) -> list[tuple[int, int]]:
        """(offset, length) of what holds data, parents' data included.

        librbd: rbd_diff_iterate2.
        """
        found: list[tuple[int, int]] = []

        def note(offset: int, length: int, exists: bool) -> None:
            if exists:
                found.append((offset, length))

        with self._reach("list extents"):
            self._image.diff_iterate(
                0, self._image.size(), None, note, whole_object=True
            )
        return found

    def watchers(self) -> tuple[str, ...]:
        """Addresses of the clients that have it open for writing.

        Ours too, when this one is. librbd: rbd_watchers_list.
        """
        with self._reach("list watchers"):
            return tuple(
                entry["addr"] for entry in self._image.watchers_list()
            )
