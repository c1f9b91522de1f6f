# SPDX-License-Identifier: Apache-2.0

"""An image in memory, and one open as Disk has it."""

import datetime

from nova_rbd_backend import errors, names
from nova_rbd_backend.image_options import FEATURES, Striping
from nova_rbd_backend.storage.disk import Client, Layout, Snap
from nova_rbd_backend.storage.image_holders import Lock

OBJECT_BYTES = 4 << 20
DEFAULT_FEATURES = tuple(name for name in FEATURES if name != "journaling")
OWN_ID = 1
OWN_ADDRESS = "fake:0/1"


class FakeImage:
    def __init__(self, image_id, size_bytes):
        self.image_id = image_id
        self.head = bytearray(size_bytes)
        self.snaps = {}
        self.hidden = False
        self.protected = set()
        self.metadata = {}
        self.parent = None
        self.writers = []
        self.lock = None
        self.flattened = False
        self.striping = Striping(OBJECT_BYTES, OBJECT_BYTES, 1)
        self.features = DEFAULT_FEATURES
        self.data_pool = None
        self.created_at = datetime.datetime.now(datetime.UTC)


class FakeDisk:
    def __init__(self, pool, image, name, snap, read_only):
        self.pool = pool
        self.name = name
        self._image = image
        self._snap = snap
        self._read_only = read_only

    def _writable(self, operation, snap=None):
        if self._read_only:
            raise errors.NotPermitted(
                **self.pool._facts(operation, self.name, snap)
            )
        return self._image

    @property
    def _bytes(self):
        if self._snap is None:
            return self._image.head
        return self._image.snaps[self._snap]

    @property
    def image_id(self):
        return self._image.image_id

    def size_bytes(self):
        return len(self._bytes)

    def layout(self):
        image = self._image
        return Layout(
            **vars(image.striping),
            data_pool=image.data_pool,
            features=image.features,
            created_at=image.created_at,
        )

    def object_bytes(self):
        return self._image.striping.object_bytes

    def resize(self, size_bytes):
        head = self._writable("resize").head
        if size_bytes < len(head):
            raise errors.StorageFault(**self.pool._facts("resize", self.name))
        head.extend(bytes(size_bytes - len(head)))

    def shrink(self, size_bytes):
        del self._writable("shrink").head[size_bytes:]

    def snaps(self):
        image = self._image
        found = [Snap(name, len(c), True) for name, c in image.snaps.items()]
        # A removed snap is kept for its clones, under another name.
        if image.hidden and any(self.pool.cluster.children_of(image)):
            found.append(Snap("hidden", len(image.head), False))
        return tuple(found)

    def create_snap(self, snap):
        image = self._writable("make a snap", snap)
        image.snaps.setdefault(snap, bytes(image.head))

    def protect_snap(self, snap):
        image = self._writable("protect a snap", snap)
        if snap not in image.snaps:
            raise errors.SnapNotFound(
                **self.pool._facts("protect a snap", self.name, snap)
            )
        image.protected.add(snap)

    def remove_snap(self, snap):
        image = self._writable("remove a snap", snap)
        if image.snaps.pop(snap, None) is not None:
            image.hidden = True
        image.protected.discard(snap)

    def rollback(self, snap):
        image = self._writable("roll back", snap)
        if snap not in image.snaps:
            raise errors.SnapNotFound(
                **self.pool._facts("roll back", self.name, snap)
            )
        image.head[:] = image.snaps[snap]

    def parent(self):
        return self._image.parent[1] if self._image.parent else None

    def children(self):
        return tuple(
            names.ImagePath(pool.name, pool.namespace, name)
            for pool, name, trashed, _ in self.pool.cluster.children_of(
                self._image
            )
            if not trashed
        )

    def flatten(self):
        if self._image.parent is not None:
            self._writable("flatten").parent = None

    def metadata(self):
        return dict(self._image.metadata)

    def set_metadata(self, values):
        self._image.metadata.update(values)

    def write(self, data, offset):
        head = self._writable("write").head
        if offset + len(data) > len(head):
            raise errors.StorageFault(**self.pool._facts("write", self.name))
        self._image.lock = Lock(OWN_ID, "fake")
        head[offset : offset + len(data)] = data

    def read(self, offset, length):
        return bytes(self._bytes[offset : offset + length])

    def zero(self, offset, length):
        self._writable("discard").head[offset : offset + length] = bytes(
            length
        )

    def flush(self):
        pass

    def extents(self):
        return self._objects_unlike(bytes(len(self._bytes)))

    def changes(self, since):
        if since not in self._image.snaps:
            raise errors.SnapNotFound(
                **self.pool._facts("list extents", self.name, since)
            )
        return self._objects_unlike(self._image.snaps[since])

    def _objects_unlike(self, other):
        content = self._bytes
        return [
            (start, min(OBJECT_BYTES, len(content) - start))
            for start in range(0, len(content), OBJECT_BYTES)
            if content[start : start + OBJECT_BYTES]
            != other[start : start + OBJECT_BYTES]
        ]

    def watchers(self):
        return tuple(self._image.writers)

    def clients(self):
        if not self._image.writers:
            return ()
        lock = self._image.lock
        cookie = lock.cookie if lock else None
        return (Client(OWN_ID, OWN_ADDRESS, cookie, watches=True),)
