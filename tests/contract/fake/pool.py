# SPDX-License-Identifier: Apache-2.0

import contextlib

from nova_rbd_backend import errors, names, notices
from nova_rbd_backend.image_options import NO_OPTIONS
from tests.contract.fake.directory import FakeDirectory
from tests.contract.fake.headers import FakeHeaders
from tests.contract.fake.holders import FakeHolders
from tests.contract.fake.image import FakeImage
from tests.contract.fake.objects import FakeObjects
from tests.contract.fake.state import OWN_ADDRESS, StoredImage
from tests.contract.fake.trash import FakeTrash


class FakePool:
    def __init__(self, cluster, name, namespace="", options=NO_OPTIONS):
        self.cluster = cluster
        self.name = name
        self.namespace = namespace
        self.options = options
        self._state = cluster.stored(name, namespace)
        self.objects = FakeObjects(self._state)
        self.directory = FakeDirectory(self._state)
        self.headers = FakeHeaders(self._state)
        self.holders = FakeHolders(self._state)
        self.trash = FakeTrash(self._state)

    def __str__(self):
        return str(self._state)

    def beside(self, name, namespace=""):
        return FakePool(self.cluster, name, namespace)

    def create(self, name, size_bytes):
        if name in self._state.images:
            raise errors.ImageExists(**self._state.facts("create", name))
        image = StoredImage(f"{next(self.cluster.ids):x}", size_bytes)
        image.striping = self.options.striping or image.striping
        image.features = self.options.features or image.features
        image.data_pool = self.options.data_pool
        self._state.images[name] = image

    def clone(self, parent_pool, parent_image, parent_snap, name):
        theirs = parent_pool._state
        facts = theirs.facts("clone", parent_image, parent_snap)
        if parent_image not in theirs.images:
            raise errors.ImageNotFound(**facts)
        parent = theirs.images[parent_image]
        if parent_snap not in parent.snaps:
            raise errors.SnapNotFound(**facts)
        content = parent.snaps[parent_snap]
        striping = self._striping_of_clone(parent_pool, parent.striping)
        self.create(name, len(content))
        image = self._state.images[name]
        image.striping = striping
        image.features = self.options.features or parent.features
        image.metadata.update(parent.metadata)
        image.head[:] = content
        path = names.SnapPath(
            theirs.name, theirs.namespace, parent_image, parent_snap
        )
        image.parent = (parent, path)

    def _striping_of_clone(self, parent_pool, found):
        wanted = self.options.striping
        if wanted is None:
            return found
        given = wanted.not_finer_than(found)
        if given != wanted:
            notices.note(
                notices.Coarser(
                    str(self),
                    self.options.group,
                    str(parent_pool),
                    wanted,
                    found,
                    given,
                )
            )
        return given

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
            stored = self._state.by_name("open", name)
        else:
            stored = self._state.by_id("open", image_id)
        image = FakeImage(self._state, stored, name or image_id, read_only)
        if snap is not None:
            image.show_snap(snap)
        if not read_only:
            stored.writers.append(OWN_ADDRESS)
        try:
            yield image
        finally:
            if not read_only:
                stored.writers.remove(OWN_ADDRESS)
                stored.lock = None

    def snap_size_bytes(self, image, snap):
        stored = self._state.by_name("get the size", image)
        return self.headers.snap_size_bytes(stored.image_id, snap)

    def parent_of(self, image_id):
        found = self.headers.parent_id(image_id)
        if found is None:
            return None
        pool_id, namespace, parent = found
        return self.beside(self.cluster.pool_name(pool_id), namespace), parent

    def depth(self, image_id):
        count = 0
        with contextlib.suppress(errors.ImageNotFound):
            image = self._state.by_id("look at", image_id)
            while image.parent is not None:
                image, _ = image.parent
                count += 1
        return count

    def remove(self, name):
        image = self._state.images.get(name)
        if image is not None:
            self._state.check_removable("remove", image, name)
            del self._state.images[name]

    def remove_unlisted(self, name):
        """Do nothing, since every image is listed here."""
