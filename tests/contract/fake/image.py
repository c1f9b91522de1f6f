# SPDX-License-Identifier: Apache-2.0

from nova_rbd_backend import errors, names
from nova_rbd_backend.ceph.holders import Client, Lock
from nova_rbd_backend.ceph.image import Layout, Snap
from tests.contract.fake.state import OBJECT_BYTES, OWN_ADDRESS, OWN_ID


class FakeImage:
    """An open image, like Image, made of a PoolState and a StoredImage."""

    def __init__(self, state, stored, name, read_only):
        self.pool = str(state)
        self.name = name
        self._state = state
        self._stored = stored
        self._snap = None
        self._read_only = read_only

    def _facts(self, operation, snap=None):
        return self._state.facts(operation, self.name, snap)

    def _writable(self, operation, snap=None):
        if self._read_only:
            raise errors.NotPermitted(**self._facts(operation, snap))
        return self._stored

    def _snap_bytes(self, operation, snap):
        if snap not in self._stored.snaps:
            raise errors.SnapNotFound(**self._facts(operation, snap))
        return self._stored.snaps[snap]

    @property
    def _bytes(self):
        if self._snap is None:
            return self._stored.head
        return self._stored.snaps[self._snap]

    @property
    def image_id(self):
        return self._stored.image_id

    def size_bytes(self):
        return len(self._bytes)

    def layout(self):
        stored = self._stored
        return Layout(
            **vars(stored.striping),
            data_pool=stored.data_pool,
            features=stored.features,
            created_at=stored.created_at,
        )

    def resize(self, size_bytes):
        head = self._writable("resize").head
        if size_bytes < len(head):
            raise errors.StorageFault(**self._facts("resize"))
        head.extend(bytes(size_bytes - len(head)))

    def shrink(self, size_bytes):
        del self._writable("shrink").head[size_bytes:]

    def snaps(self):
        stored = self._stored
        found = [Snap(name, len(c), True) for name, c in stored.snaps.items()]
        # A removed snap is kept for its clones, under another name.
        if stored.hidden and any(self._state.cluster.clones_of(stored)):
            found.append(Snap("hidden", len(stored.head), False))
        return tuple(found)

    def show_snap(self, snap):
        self._snap_bytes("open", snap)
        self._snap = snap

    def create_snap(self, snap):
        stored = self._writable("make a snap", snap)
        stored.snaps.setdefault(snap, bytes(stored.head))

    def protect_snap(self, snap):
        stored = self._writable("protect a snap", snap)
        self._snap_bytes("protect a snap", snap)
        stored.protected.add(snap)

    def remove_snap(self, snap):
        stored = self._writable("remove a snap", snap)
        if stored.snaps.pop(snap, None) is not None:
            stored.hidden = True
        stored.protected.discard(snap)

    def rollback(self, snap):
        stored = self._writable("roll back", snap)
        stored.head[:] = self._snap_bytes("roll back", snap)

    def parent(self):
        return self._stored.parent[1] if self._stored.parent else None

    def children(self):
        return tuple(
            names.ImagePath(pool.name, pool.namespace, name)
            for pool, name, trashed, _ in self._state.cluster.clones_of(
                self._stored
            )
            if not trashed
        )

    def flatten(self, progress=None):
        if self._stored.parent is not None:
            self._writable("flatten").parent = None

    def metadata(self):
        return dict(self._stored.metadata)

    def write(self, data, offset):
        head = self._writable("write").head
        if offset + len(data) > len(head):
            raise errors.StorageFault(**self._facts("write"))
        self._stored.lock = Lock(OWN_ID, "fake")
        head[offset : offset + len(data)] = data

    def read(self, offset, length):
        return bytes(self._bytes[offset : offset + length])

    def zero(self, offset, length):
        head = self._writable("write").head
        head[offset : offset + length] = bytes(length)

    def flush(self):
        pass

    def extents(self):
        return self._objects_unlike(bytes(len(self._bytes)))

    def changes(self, since):
        return self._objects_unlike(self._snap_bytes("list extents", since))

    def _objects_unlike(self, other):
        content = self._bytes
        return [
            (start, min(OBJECT_BYTES, len(content) - start))
            for start in range(0, len(content), OBJECT_BYTES)
            if content[start : start + OBJECT_BYTES]
            != other[start : start + OBJECT_BYTES]
        ]

    def clients(self):
        if not self._stored.writers:
            return ()
        lock = self._stored.lock
        cookie = lock.cookie if lock else None
        return (Client(OWN_ID, OWN_ADDRESS, cookie, watches=True),)
