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

"""A pool in memory that behaves as Pool does; kept true by this suite."""

import contextlib
import datetime
import itertools

from nova_rbd_backend import errors, names
from nova_rbd_backend.storage.disk import Snap
from nova_rbd_backend.storage.pool import TrashedImage

OBJECT_BYTES = 4 << 20


class _Image:
    def __init__(self, image_id, size_bytes):
        self.image_id = image_id
        self.head = bytearray(size_bytes)
        self.snaps = {}
        self.protected = set()
        self.metadata = {}
        self.parent = None
        self.writers = []
        self.flattened = False


class FakeCluster:
    def __init__(self, fsid="fake-fsid"):
        self._fsid = fsid
        self._pools = {}
        self.ids = itertools.count(0x1000)

    def fsid(self):
        return self._fsid

    def pool(self, name, namespace="", data_pool=None):
        key = (name, namespace)
        if key not in self._pools:
            self._pools[key] = FakePool(self, name, namespace)
        return self._pools[key]

    def children_of(self, image):
        for pool in self._pools.values():
            for name, child in pool.images.items():
                if child.parent is not None and child.parent[0] is image:
                    yield pool, name, False, child
            for trashed, child in pool.trashed.values():
                if child.parent is not None and child.parent[0] is image:
                    yield pool, trashed.name, True, child


class FakePool:
    def __init__(self, cluster, name, namespace):
        self.cluster = cluster
        self.name = name
        self.namespace = namespace
        self.images = {}
        self.trashed = {}
        self.omaps = {}

    def __str__(self):
        return "/".join(part for part in (self.name, self.namespace) if part)

    def _facts(self, operation, image, snap=None):
        return {
            "operation": operation,
            "pool": str(self),
            "image": image,
            "snap": snap,
        }

    def _image(self, operation, name):
        if name not in self.images:
            raise errors.ImageNotFound(**self._facts(operation, name))
        return self.images[name]

    def names(self, prefix):
        return sorted(name for name in self.images if name.startswith(prefix))

    def exists(self, image):
        return image in self.images

    def image_id(self, image):
        found = self.images.get(image)
        return found.image_id if found else None

    listed_id = image_id

    def publish(self, draft, image_id, name):
        if name in self.images:
            raise errors.ImageExists(**self._facts("name", name))
        if self.image_id(draft) != image_id:
            raise errors.TakenOver(**self._facts("create", name))
        self.images[name] = self.images.pop(draft)

    def finish_publishing(self, draft, name):
        """Nothing to finish: publish happens at once here."""

    def _by_id(self, operation, image_id):
        if image_id in self.trashed:
            return self.trashed[image_id][1]
        for image in self.images.values():
            if image.image_id == image_id:
                return image
        raise errors.ImageNotFound(**self._facts(operation, image_id))

    def image_size_bytes(self, image_id):
        return len(self._by_id("get the size", image_id).head)

    def snap_size_bytes(self, image, snap):
        with self.open(image, snap=snap) as disk:
            return disk.size_bytes()

    def create(self, name, size_bytes):
        if name in self.images:
            raise errors.ImageExists(**self._facts("create", name))
        image = _Image(f"{next(self.cluster.ids):x}", size_bytes)
        self.images[name] = image

    def clone(self, parent_pool, parent_image, parent_snap, name):
        facts = parent_pool._facts("clone", parent_image, parent_snap)
        if parent_image not in parent_pool.images:
            raise errors.ImageNotFound(**facts)
        parent = parent_pool.images[parent_image]
        if parent_snap not in parent.snaps:
            raise errors.SnapNotFound(**facts)
        content = parent.snaps[parent_snap]
        self.create(name, len(content))
        image = self.images[name]
        image.head[:] = content
        path = names.SnapPath(
            parent_pool.name, parent_pool.namespace, parent_image, parent_snap
        )
        image.parent = (parent, path)

    @contextlib.contextmanager
    def open(self, name=None, snap=None, read_only=True, image_id=None):
        if image_id is None:
            image = self._image("open", name)
        else:
            image = self._by_id("open", image_id)
        if snap is not None and snap not in image.snaps:
            raise errors.SnapNotFound(**self._facts("open", name, snap))
        disk = FakeDisk(self, image, name or image_id, snap, read_only)
        if not read_only:
            image.writers.append("fake:0/1")
        try:
            yield disk
        finally:
            if not read_only:
                image.writers.remove("fake:0/1")

    def remove(self, name):
        image = self.images.get(name)
        if image is not None:
            self._check_removable("remove", image, name)
            del self.images[name]

    def remove_unlisted(self, name):
        """Nothing is ever unlisted here."""

    def trash_finish_move(self, image_id, name):
        """No move is ever broken off here."""

    def _check_removable(self, operation, image, shown):
        if image.snaps or any(self.cluster.children_of(image)):
            raise errors.HasSnaps(**self._facts(operation, shown))
        if image.writers:
            raise errors.DiskBusy(**self._facts(operation, shown))

    def trash_move(self, name, retention_seconds=0):
        image = self._image("move to the trash", name)
        until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(
            seconds=retention_seconds
        )
        del self.images[name]
        trashed = TrashedImage(image.image_id, name, until)
        self.trashed[image.image_id] = (trashed, image)

    def trash_remove(self, image_id):
        operation = "remove from the trash"
        if image_id not in self.trashed:
            raise errors.ImageNotFound(**self._facts(operation, image_id))
        trashed, image = self.trashed[image_id]
        if trashed.kept_until > datetime.datetime.now(datetime.UTC):
            raise errors.NotPermitted(**self._facts(operation, image_id))
        self._check_removable(operation, image, image_id)
        del self.trashed[image_id]

    def trash_restore(self, image_id, name):
        self.images[name] = self.trashed.pop(image_id)[1]

    def trash_list(self):
        return [trashed for trashed, _ in self.trashed.values()]

    def trash_get(self, image_id):
        return self.trashed.get(image_id, (None,))[0]

    def omap_get(self, key, prefix):
        found = self.omaps.get(key, {})
        return {k: v for k, v in found.items() if k.startswith(prefix)}

    def omap_value(self, key, name):
        return self.omaps.get(key, {}).get(name)

    def omap_swap(self, key, name, old, new):
        found = self.omaps.setdefault(key, {})
        if found.get(name, b"") != (old or "").encode():
            return False
        if new is None:
            found.pop(name, None)
        else:
            found[name] = new.encode()
        return True

    def set_metadata(self, image_id, values):
        self._by_id("set metadata", image_id).metadata.update(values)


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

    def object_bytes(self):
        return OBJECT_BYTES

    def resize(self, size_bytes):
        head = self._writable("resize").head
        if size_bytes < len(head):
            raise errors.StorageFault(**self.pool._facts("resize", self.name))
        head.extend(bytes(size_bytes - len(head)))

    def snaps(self):
        return tuple(
            Snap(name, len(content), True)
            for name, content in self._image.snaps.items()
        )

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
        image.snaps.pop(snap, None)
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
        head[offset : offset + len(data)] = data

    def read(self, offset, length):
        return bytes(self._bytes[offset : offset + length])

    def discard(self, offset, length):
        self._writable("discard").head[offset : offset + length] = bytes(
            length
        )

    def flush(self):
        pass

    def extents(self):
        content = self._bytes
        return [
            (start, min(OBJECT_BYTES, len(content) - start))
            for start in range(0, len(content), OBJECT_BYTES)
            if any(content[start : start + OBJECT_BYTES])
        ]

    def watchers(self):
        return tuple(self._image.writers)
