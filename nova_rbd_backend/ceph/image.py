# SPDX-License-Identifier: Apache-2.0

"""An open RBD image, through librbd."""

import contextlib
import dataclasses
import datetime
from collections.abc import Callable, Iterator, Mapping

import rbd

from nova_rbd_backend import errors, names
from nova_rbd_backend.ceph.access import Access
from nova_rbd_backend.ceph.connection import Connection
from nova_rbd_backend.ceph.headers import Headers
from nova_rbd_backend.ceph.holders import Client
from nova_rbd_backend.image_options import CONF_KEY

#: Called with how many objects of how many are done.
Progress = Callable[[int, int], None]

# features.h, 16.2: bit by bit
_FEATURES = (
    "layering",
    "striping",
    "exclusive-lock",
    "object-map",
    "fast-diff",
    "deep-flatten",
    "journaling",
    "data-pool",
    "operations",
    "migrating",
    "non-primary",
)


@dataclasses.dataclass(frozen=True)
class Snap:
    """:ivar user: made by a user, not by the trash, a group or mirroring"""

    name: str
    size_bytes: int
    user: bool


@dataclasses.dataclass(frozen=True)
class Layout:
    """How an image lies on the cluster.

    :ivar data_pool: None: the pool that has the image
    :ivar created_at: in UTC
    """

    object_bytes: int
    stripe_unit_bytes: int
    stripe_count: int
    data_pool: str | None
    features: tuple[str, ...]
    created_at: datetime.datetime


class Image:
    """An image that Pool.open opened; of use only inside its ``with``.

    :ivar pool: the name of its pool (and namespace), for messages
    """

    def __init__(
        self,
        access: Access,
        headers: Headers,
        connection: Connection,
        image: rbd.Image,
        name: str,
    ):
        self.pool = str(access)
        self.name = name
        self._access = access
        self._headers = headers
        self._connection = connection
        self._image = image

    @contextlib.contextmanager
    def _reach(
        self, operation: str, snap: str | None = None
    ) -> Iterator[None]:
        with self._access.cluster.reach(
            operation,
            self._connection,
            pool=self.pool,
            image=self.name,
            snap=snap,
        ):
            yield

    # what it is

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
        """Return the size of the image's objects. librbd: rbd_stat."""
        with self._reach("get the object size"):
            return int(self._image.stat()["obj_size"])

    def layout(self) -> Layout:
        """librbd: rbd_stat, rbd_get_stripe_unit, rbd_get_stripe_count,
        rbd_get_data_pool_id, rbd_get_features, rbd_get_create_timestamp.
        """
        with self._reach("get the layout of"):
            features = self._image.features()
            layout = Layout(
                int(self._image.stat()["obj_size"]),
                self._image.stripe_unit(),
                self._image.stripe_count(),
                None,
                tuple(
                    name
                    for bit, name in enumerate(_FEATURES)
                    if features >> bit & 1
                ),
                self._image.create_timestamp().replace(tzinfo=datetime.UTC),
            )
            data_pool_id = self._image.data_pool_id()
        if "data-pool" not in layout.features:
            return layout
        data_pool = self._access.cluster.pool_name(data_pool_id)
        return dataclasses.replace(layout, data_pool=data_pool)

    def used_bytes(self) -> int:
        """Return what the image and its snaps take, as ``rbd du`` counts it.

        Whole objects; without fast-diff each object is looked at. The image
        shows its head afterwards. librbd: rbd_diff_iterate2.
        """
        used, since = 0, None

        def note(offset: int, length: int, exists: bool) -> None:
            nonlocal used
            used += length if exists else 0

        snaps = [snap.name for snap in self.snaps() if snap.user]
        with self._reach("count the objects of"):
            for snap in (*snaps, None):
                self._image.set_snap(snap)
                self._image.diff_iterate(
                    0,
                    self._image.size(),
                    since,
                    note,
                    include_parent=False,
                    whole_object=True,
                )
                since = snap
        return used

    # its size

    def resize(self, size_bytes: int) -> None:
        """Grow; never shrinks. librbd: rbd_resize2."""
        with self._reach("resize"):
            self._image.resize(size_bytes, allow_shrink=False)

    def shrink(self, size_bytes: int) -> None:
        """Cut off, and lose, what lies beyond. librbd: rbd_resize2."""
        with self._reach("shrink"):
            self._image.resize(size_bytes, allow_shrink=True)

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
        """Make a snap. A snap of that name exists: done.

        librbd: rbd_snap_create2.
        """
        with (
            contextlib.suppress(errors.SnapExists),
            self._reach("make a snap", snap),
        ):
            self._image.create_snap(snap)

    def protect_snap(self, snap: str) -> None:
        """Protect a snap, as Glance does with its own. Protected: done.

        librbd: rbd_snap_protect.
        """
        with self._reach("protect a snap", snap):
            if not self._image.is_protected_snap(snap):
                self._image.protect_snap(snap)

    def remove_snap(self, snap: str) -> None:
        """Remove a snap, protected or not. No such snap: done.

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

    # parents and clones

    def parent(self) -> names.SnapPath | None:
        """Return the snap it is a clone of; None: it is no clone.

        librbd: rbd_get_parent.
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
        """Return the clones of its snaps that are not in the trash.

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
        """Copy what it shares with its parent. No parent: done.

        The owner of its lock copies, where there is one: a guest's QEMU.
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
        self._headers.set_metadata(self.image_id, values)

    def set_conf(self, name: str, value: str) -> None:
        """Set an option of librbd for this image.

        librbd: rbd_metadata_set, which checks the option.

        :raises StorageFault: images have no such option, or not this value
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
        """Make a range read as zeros, and free what can be freed of it.

        librbd: rbd_write_zeroes; rbd_discard leaves ranges smaller than
        rbd_discard_granularity_bytes as they are.
        """
        with self._reach("write"):
            self._image.write_zeroes(offset, length)

    def flush(self) -> None:
        """Wait until all that was written is stored. librbd: rbd_flush."""
        with self._reach("flush"):
            self._image.flush()

    def extents(self) -> list[tuple[int, int]]:
        """Return (offset, length) of what holds data, parents' data included.

        librbd: rbd_diff_iterate2.
        """
        return [
            (offset, length)
            for offset, length, exists in self._diff(None)
            if exists
        ]

    def changes(self, since: str) -> list[tuple[int, int]]:
        """Return (offset, length) of what was changed since a snap.

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

    # who holds it

    def clients(self) -> tuple[Client, ...]:
        """Return who holds its lock or has it open for writing.

        Living clients and dead ones. The lock is as it was when this image
        was opened: librbd caches it (16.2). librbd: rbd_watchers_list,
        rbd_list_lockers.
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
        """Return the addresses of the clients that have it open for writing.

        Our own too, when this image is open for writing. librbd:
        rbd_watchers_list.
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
