# SPDX-License-Identifier: Apache-2.0

"""A pool in memory that behaves as Pool does; kept true by this suite."""

import contextlib
import copy
import datetime
import itertools
import time

from nova_rbd_backend import errors, names
from nova_rbd_backend.storage import striping
from nova_rbd_backend.storage.image_holders import Answer
from nova_rbd_backend.storage.pool import TrashedImage
from nova_rbd_backend.storage.pool_objects import NO_OPTIONS
from tests.contract.fake_disk import OWN_ADDRESS, OWN_ID, FakeDisk, FakeImage


class FakeCluster:
    def __init__(self, fsid="fake-fsid"):
        self._fsid = fsid
        self._pools = {}
        self.ids = itertools.count(0x1000)

    def fsid(self):
        return self._fsid

    def client_id(self):
        return OWN_ID

    def connection(self):
        return None

    def pool(self, name, namespace="", options=NO_OPTIONS):
        key = (name, namespace)
        if key not in self._pools:
            self._pools[key] = FakePool(self, name, namespace)
        door = copy.copy(self._pools[key])
        door.options = options
        return door

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
        self.held = {}
        self.options = NO_OPTIONS

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

    def ids(self, prefix):
        return {name: self.image_id(name) for name in self.names(prefix)}

    def exists(self, image):
        return image in self.images

    def image_id(self, image):
        found = self.images.get(image)
        return found.image_id if found else None

    listed_id = image_id

    def listed_name(self, image_id):
        for name, image in self.images.items():
            if image.image_id == image_id:
                return name
        return None

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
        image = FakeImage(f"{next(self.cluster.ids):x}", size_bytes)
        image.striping = self.options.striping or image.striping
        image.features = self.options.features or image.features
        image.data_pool = self.options.data_pool
        self.images[name] = image

    def clone(self, parent_pool, parent_image, parent_snap, name):
        facts = parent_pool._facts("clone", parent_image, parent_snap)
        if parent_image not in parent_pool.images:
            raise errors.ImageNotFound(**facts)
        parent = parent_pool.images[parent_image]
        if parent_snap not in parent.snaps:
            raise errors.SnapNotFound(**facts)
        content = parent.snaps[parent_snap]
        how = striping.of_clone(self, parent_pool, parent_image)
        self.create(name, len(content))
        image = self.images[name]
        image.striping = how or parent.striping
        image.features = self.options.features or parent.features
        image.metadata.update(parent.metadata)
        image.head[:] = content
        path = names.SnapPath(
            parent_pool.name, parent_pool.namespace, parent_image, parent_snap
        )
        image.parent = (parent, path)

    @contextlib.contextmanager
    def open(
        self,
        name=None,
        snap=None,
        read_only=True,
        image_id=None,
        frees=False,
    ):
        if image_id is None:
            image = self._image("open", name)
        else:
            image = self._by_id("open", image_id)
        if snap is not None and snap not in image.snaps:
            raise errors.SnapNotFound(**self._facts("open", name, snap))
        disk = FakeDisk(self, image, name or image_id, snap, read_only)
        if not read_only:
            image.writers.append(OWN_ADDRESS)
        try:
            yield disk
        finally:
            if not read_only:
                image.writers.remove(OWN_ADDRESS)
                image.lock = None

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

    def trash_remove(self, image_id, force=False):
        operation = "remove from the trash"
        if image_id not in self.trashed:
            raise errors.ImageNotFound(**self._facts(operation, image_id))
        trashed, image = self.trashed[image_id]
        kept = trashed.kept_until > datetime.datetime.now(datetime.UTC)
        if kept and not force:
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

    def omap_swap(self, key, name, old, new, frees=False):
        found = self.omaps.setdefault(key, {})
        if found.get(name, b"") != (old or "").encode():
            return False
        if new is None:
            found.pop(name, None)
        else:
            found[name] = new.encode()
        return True

    def locks(self, image_id):
        try:
            lock = self._by_id("look at the lock of", image_id).lock
        except errors.ImageNotFound:
            return ()
        return () if lock is None else (lock,)

    def break_lock(self, image_id, lock):
        if lock in self.locks(image_id):
            self._by_id("break the lock of", image_id).lock = None

    def ask_watchers(self, image_ids, limit_seconds):
        return {image_id: self._answer(image_id) for image_id in image_ids}

    def is_mirrored(self, image_id):
        return False

    def ask_mirrors(self, limit_seconds):
        return Answer()

    def _answer(self, image_id):
        try:
            writers = self._by_id("ask the watchers of", image_id).writers
        except errors.ImageNotFound:
            return Answer()
        return Answer(frozenset([OWN_ID] if writers else []))

    def lease(self, key, name, cookie, seconds, holder, connection=None):
        held, until = self.held.get((key, name), (cookie, 0.0))
        if held != cookie and until > time.monotonic():
            return False
        self.held[key, name] = (cookie, time.monotonic() + seconds)
        return True

    def end_lease(self, key, name, cookie, connection=None):
        held, until = self.held.get((key, name), ("", 0.0))
        if held != cookie or until <= time.monotonic():
            return False
        del self.held[key, name]
        return True

    def leases(self, key):
        return [name for at, name in self.held if at == key]

    def parent_of(self, image_id):
        parent = self._by_id("get the parent of", image_id).parent
        if parent is None:
            return None
        image, path = parent
        return self.cluster.pool(path.pool, path.namespace), image.image_id

    def has_clones(self, image_id):
        image = self._by_id("look for clones of", image_id)
        return any(self.cluster.children_of(image))

    def striping(self, image_id):
        return self._by_id("get the size", image_id).striping

    def set_metadata(self, image_id, values, conf=None):
        found = self._by_id("set metadata", image_id).metadata
        for key in [key for key in found if key.startswith("conf_")]:
            if conf is not None:
                del found[key]
        found.update(values, **(conf or {}))
