# SPDX-License-Identifier: Apache-2.0

"""An open RBD image, through librbd."""

import contextlib
import dataclasses
import datetime
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping

import rbd

from nova_rbd_backend import errors, metadata, names
from nova_rbd_backend.ceph.access import Access
from nova_rbd_backend.ceph.connection import Connection
from nova_rbd_backend.ceph.holders import Client
from nova_rbd_backend.ceph.lock_wait import LockWait
from nova_rbd_backend.image_options import CONF_KEY

#: Called with the number of objects that are done, and of all objects.
Progress = Callable[[int, int], None]
#: Limits the wait for another client's lock; called with the operation.
Limited = Callable[[str], contextlib.AbstractContextManager[LockWait]]

# By bit, from the lowest (features.h, 16.2).
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


def can_decrypt_clones() -> bool:
    """Return whether this host's librbd can read an encrypted clone.

    Only clients need to know of it, and no OSD. Ceph 16 cannot.
    """
    return hasattr(rbd.Image, "encryption_load2")


@dataclasses.dataclass(frozen=True)
class Snap:
    name: str
    size_bytes: int
    user: bool  # made by a user; not by the trash, a group or mirroring


@dataclasses.dataclass(frozen=True)
class Layout:
    """How an image is stored."""

    object_bytes: int
    stripe_unit_bytes: int
    stripe_count: int
    data_pool: str | None  # None: the pool that has the image
    features: tuple[str, ...]
    created_at: datetime.datetime  # in UTC


class Image:
    """An image that Pool.open opened; usable only inside its ``with``.

    :ivar pool: the name of its pool (and namespace), for messages
    """

    def __init__(
        self,
        access: Access,
        connection: Connection,
        image: rbd.Image,
        name: str,
        limited: Limited,
    ):
        self.pool = str(access)
        self.name = name
        self._cluster = access.cluster
        self._image = image
        self._limited = limited
        # librbd gets the lock at the first write, and keeps it.
        self._has_written = False
        self._decrypted = False
        self._reach = functools.partial(
            access.cluster.reach,
            connection=connection,
            pool=self.pool,
            image=name,
        )

    @contextlib.contextmanager
    def _changing(
        self, operation: str, snap: str | None = None
    ) -> Iterator[LockWait]:
        """Make a change, which may have to wait for a client's lock.

        :raises DiskBusy: the owner of the lock does not act
        """
        with (
            self._limited(operation) as wait,
            self._reach(operation, snap=snap),
        ):
            yield wait

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        if self._has_written:
            with self._reach("write"):
                yield
        else:
            with self._changing("write"):
                yield
            self._has_written = True

    @property
    def image_id(self) -> str:
        """librbd: rbd_get_id."""
        with self._reach("get the id"):
            return self._image.id()

    def size_bytes(self) -> int:
        """librbd: rbd_get_size."""
        with self._reach("get the size"):
            return self._image.size()

    def layout(self) -> Layout:
        """librbd: rbd_stat, rbd_get_stripe_unit, rbd_get_stripe_count,
        rbd_get_data_pool_id, rbd_get_features, rbd_get_create_timestamp.
        """
        with self._reach("get the layout of"):
            bits, data_pool = self._image.features(), None
            features = tuple(
                name for bit, name in enumerate(_FEATURES) if bits >> bit & 1
            )
            if "data-pool" in features:
                data_pool = self._cluster.pool_name(self._image.data_pool_id())
            return Layout(
                int(self._image.stat()["obj_size"]),
                self._image.stripe_unit(),
                self._image.stripe_count(),
                data_pool,
                features,
                self._image.create_timestamp().replace(tzinfo=datetime.UTC),
            )

    def used_bytes(self) -> int:
        """Return what the image and its snaps take, as ``rbd du`` counts it.

        Counts whole objects. Without fast-diff it asks for each object. The
        image shows its head afterwards. librbd: rbd_diff_iterate2.
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

    def resize(self, size_bytes: int) -> None:
        """Grow the image; never shrink it. librbd: rbd_resize2."""
        with self._changing("resize"):
            self._image.resize(size_bytes, allow_shrink=False)

    def shrink(self, size_bytes: int) -> None:
        """Cut off, and lose, the data beyond the size. librbd: rbd_resize2."""
        with self._changing("shrink"):
            self._image.resize(size_bytes, allow_shrink=True)

    def enable_exclusive_lock(self) -> None:
        """Add this feature. librbd: rbd_update_features.

        A client that has the image open needs the lock for its next write
        after it has been told, but may write until then.
        """
        with self._reach("add exclusive-lock to"):
            self._image.update_features(rbd.RBD_FEATURE_EXCLUSIVE_LOCK, True)

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
        """Read from the snap from now on. librbd: rbd_snap_set."""
        with self._reach("open", snap=snap):
            self._image.set_snap(snap)

    def create_snap(self, snap: str) -> None:
        """Make a snap unless it exists. librbd: rbd_snap_create2."""
        with (
            contextlib.suppress(errors.SnapExists),
            self._changing("make a snap", snap),
        ):
            self._image.create_snap(snap)

    def protect_snap(self, snap: str) -> None:
        """Protect a snap, if it is not yet. librbd: rbd_snap_protect."""
        with self._changing("protect a snap", snap):
            if not self._image.is_protected_snap(snap):
                self._image.protect_snap(snap)

    def remove_snap(self, snap: str) -> None:
        """Remove a snap, protected or not, if it exists.

        librbd hides a snap that has clones, and removes it with the last one.
        librbd: rbd_snap_unprotect, rbd_snap_remove2.

        :raises DiskBusy: it has clones of the old format
        """
        with (
            contextlib.suppress(errors.SnapNotFound),
            self._changing("remove a snap", snap),
        ):
            if self._image.is_protected_snap(snap):
                self._image.unprotect_snap(snap)
            self._image.remove_snap(snap)

    def rollback(self, snap: str) -> None:
        """Copy the snap back to the head. librbd: rbd_snap_rollback.

        :raises SnapNotFound: there is no such snap
        """
        with self._changing("roll back", snap):
            self._image.rollback_to_snap(snap)

    # parents

    def parent(self) -> names.SnapPath | None:
        """Return the snap that it is a clone of. librbd: rbd_get_parent."""
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

    def flatten(self, progress: Progress | None = None) -> None:
        """Copy the data that it shares with its parent, if it has one.

        If the image is locked, the owner of the lock copies, for example a
        guest's QEMU. librbd: rbd_flatten_with_progress.

        :param progress: called in a thread of librbd
        :raises NotSupported: it is encrypted, see decrypt()
        """

        if self.parent() is None:
            return
        if metadata.data_offset(self.metadata()) and not self._decrypted:
            # The parent's data would come to where this image has other data.
            raise errors.NotSupported(
                "it is encrypted, and its passphrase is not known here",
                operation="flatten",
                pool=self.pool,
                image=self.name,
            )
        with self._changing("flatten") as wait:

            def note(done: int, total: int) -> int:
                wait.restart()
                if progress is not None:
                    progress(done, total)
                return 0

            self._image.flatten(on_progress=note)

    def decrypt(self, passphrase: bytes) -> None:
        """Show the image as a guest sees it. librbd: rbd_encryption_load.

        :raises NotPermitted: that is not its passphrase
        """
        with self._reach("decrypt"):
            self._image.encryption_load(
                rbd.RBD_ENCRYPTION_FORMAT_LUKS2, passphrase.decode()
            )
        self._decrypted = True

    def metadata(self) -> dict[str, str]:
        """librbd: rbd_metadata_list."""
        with self._reach("list metadata"):
            return dict(self._image.metadata_list())

    def set_metadata(
        self, values: Mapping[str, str], removed: Iterable[str]
    ) -> None:
        """Set values and remove keys, one by one; other keys stay.

        librbd: rbd_metadata_set, rbd_metadata_remove.
        """
        with self._changing("set metadata"):
            for key, value in values.items():
                self._image.metadata_set(key, value)
            for key in removed:
                self._image.metadata_remove(key)

    def set_conf(self, name: str, value: str) -> None:
        """Set an option of librbd for this image.

        librbd: rbd_metadata_set, which checks the option.

        :raises StorageFault: librbd does not take this option or this value
        """
        with self._changing(f"set {name} to {value} for"):
            self._image.metadata_set(f"{CONF_KEY}{name}", value)

    # bytes

    def write(self, data: bytes, offset: int) -> None:
        """librbd: rbd_write2."""
        with self._writing():
            self._image.write(data, offset)

    def read(self, offset: int, length: int) -> bytes:
        """librbd: rbd_read2."""
        with self._reach("read"):
            return self._image.read(offset, length)

    def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeros, and free its whole objects.

        librbd: rbd_write_zeroes. rbd_discard would leave ranges smaller than
        rbd_discard_granularity_bytes as they are.
        """
        with self._writing():
            self._image.write_zeroes(offset, length)

    def flush(self) -> None:
        """Wait until all writes are stored. librbd: rbd_flush."""
        with self._reach("flush"):
            self._image.flush()

    def extents(self) -> list[tuple[int, int]]:
        """Return (offset, length) of ranges with data, also from parents.

        librbd: rbd_diff_iterate2.
        """
        return [
            (offset, length)
            for offset, length, exists in self._diff(None)
            if exists
        ]

    def changes(self, since: str) -> list[tuple[int, int]]:
        """Return (offset, length) of ranges that have changed since a snap.

        librbd: rbd_diff_iterate2.

        :raises SnapNotFound: there is no such snap
        """
        return [(offset, length) for offset, length, _ in self._diff(since)]

    def _diff(self, since: str | None) -> list[tuple[int, int, bool]]:
        found: list[tuple[int, int, bool]] = []

        def note(offset: int, length: int, exists: bool) -> None:
            found.append((offset, length, exists))

        with self._reach("list extents", snap=since):
            self._image.diff_iterate(
                0, self._image.size(), since, note, whole_object=True
            )
        return found

    # holders

    def clients(self) -> tuple[Client, ...]:
        """Return the clients that have its lock or have it open for writing.

        Includes dead clients, and this process if it opened the image for
        writing. librbd caches the lock when it opens the image (16.2).
        librbd: rbd_watchers_list, rbd_list_lockers.
        """
        with self._reach("list the clients of"):
            watching = {
                int(entry["id"]): str(entry["addr"])
                for entry in self._image.watchers_list()
            }
            found = self._image.list_lockers()
        # 16.2 returns an empty list in place of the dict if there is no lock.
        owners = {
            int(client.removeprefix("client.")): (address, cookie)
            for client, cookie, address in (found or {}).get("lockers", ())
        }
        return tuple(
            Client(
                client_id,
                *owners.get(client_id, (watching.get(client_id, ""), None)),
                watches=client_id in watching,
            )
            for client_id in sorted(watching.keys() | owners.keys())
        )
