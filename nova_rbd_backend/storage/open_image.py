# SPDX-License-Identifier: Apache-2.0

"""What an open RBD image is, and how it lies on the cluster."""

import contextlib
import dataclasses
import datetime
from collections.abc import Iterator
from typing import TYPE_CHECKING

import rbd

if TYPE_CHECKING:
    from nova_rbd_backend.storage.cluster import Connection
    from nova_rbd_backend.storage.pool import Pool


@dataclasses.dataclass(frozen=True)
class Snap:
    """:ivar user: made by a user, not by the trash, a group or mirroring"""

    name: str
    size_bytes: int
    user: bool


@dataclasses.dataclass(frozen=True)
class Layout:
    """How an image lies on the cluster.

    :ivar data_pool: None: the pool that it is in
    :ivar created_at: in UTC
    """

    object_bytes: int
    stripe_unit_bytes: int
    stripe_count: int
    data_pool: str | None
    features: tuple[str, ...]
    created_at: datetime.datetime


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


class OpenImage:
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
                # features.h, 16.2: bit by bit
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
        data_pool = self.pool.cluster.pool_name(data_pool_id)
        return dataclasses.replace(layout, data_pool=data_pool)

    def used_bytes(self) -> int:
        """What it takes itself, its snaps too, as ``rbd du`` counts it.

        Whole objects; without fast-diff each object is looked at.
        librbd: rbd_diff_iterate2. Reads the head from now on.
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
