# SPDX-License-Identifier: Apache-2.0

"""What a cluster in memory stores, shared by all FakePools of a name."""

import datetime
import itertools

from nova_rbd_backend import errors
from nova_rbd_backend.image_options import FEATURES, Striping

OBJECT_BYTES = 4 << 20
DEFAULT_FEATURES = tuple(name for name in FEATURES if name != "journaling")
OWN_ID = 1
OWN_ADDRESS = "fake:0/1"


class FakeCluster:
    def __init__(self, fsid="fake-fsid"):
        self._fsid = fsid
        self._pools = {}
        self._pool_ids = {}
        self.ids = itertools.count(0x1000)

    def fsid(self):
        return self._fsid

    def client_id(self):
        return OWN_ID

    def connection(self):
        return None

    def pool_name(self, pool_id):
        return next(n for n, i in self._pool_ids.items() if i == pool_id)

    def pool_id(self, name):
        return self._pool_ids.setdefault(name, len(self._pool_ids) + 1)

    def stored(self, name, namespace):
        """Return the one PoolState of a pool and namespace."""
        key = (name, namespace)
        if key not in self._pools:
            self._pools[key] = PoolState(self, name, namespace)
        return self._pools[key]

    def clones_of(self, image):
        """Yield (PoolState, name, whether it is trashed, StoredImage)."""
        for pool in self._pools.values():
            for name, clone in pool.images.items():
                if clone.parent is not None and clone.parent[0] is image:
                    yield pool, name, False, clone
            for trashed, clone in pool.trashed.values():
                if clone.parent is not None and clone.parent[0] is image:
                    yield pool, trashed.name, True, clone


class PoolState:
    """What a pool, or a namespace of it, stores.

    :ivar images: name -> StoredImage
    :ivar trashed: image id -> (TrashedImage, StoredImage)
    :ivar omaps: object -> its omap
    :ivar leases: (object, name) -> (cookie, when the lease ends)
    """

    def __init__(self, cluster, name, namespace):
        self.cluster = cluster
        self.name = name
        self.namespace = namespace
        self.images = {}
        self.trashed = {}
        self.omaps = {}
        self.leases = {}

    def __str__(self):
        return "/".join(part for part in (self.name, self.namespace) if part)

    def facts(self, operation, image, snap=None):
        return {
            "operation": operation,
            "pool": str(self),
            "image": image,
            "snap": snap,
        }

    def by_name(self, operation, name):
        if name not in self.images:
            raise errors.ImageNotFound(**self.facts(operation, name))
        return self.images[name]

    def by_id(self, operation, image_id):
        """Return an image, trashed or not."""
        if image_id in self.trashed:
            return self.trashed[image_id][1]
        for image in self.images.values():
            if image.image_id == image_id:
                return image
        raise errors.ImageNotFound(**self.facts(operation, image_id))

    def check_removable(self, operation, image, shown):
        if image.snaps or any(self.cluster.clones_of(image)):
            raise errors.HasSnaps(**self.facts(operation, shown))
        if image.writers:
            raise errors.DiskBusy(**self.facts(operation, shown))


class StoredImage:
    """What an image stores.

    :ivar head: the bytes of the image
    :ivar snaps: name -> the bytes of the snap
    :ivar hidden: whether a snap was removed that clones may need
    :ivar parent: (StoredImage, SnapPath); None if the image is not a clone
    :ivar writers: the address of each client with the image open for writing
    """

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
        self.striping = Striping(OBJECT_BYTES, OBJECT_BYTES, 1)
        self.features = DEFAULT_FEATURES
        self.data_pool = None
        self.created_at = datetime.datetime.now(datetime.UTC)
