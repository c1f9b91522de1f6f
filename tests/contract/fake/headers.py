# SPDX-License-Identifier: Apache-2.0

from nova_rbd_backend import errors
from nova_rbd_backend.image_options import CONF_KEY


class FakeHeaders:
    def __init__(self, state):
        self._state = state

    def _image(self, image_id):
        return self._state.by_id("look at", image_id)

    def size_bytes(self, image_id):
        return len(self._image(image_id).head)

    def snap_size_bytes(self, image_id, snap):
        snaps = self._image(image_id).snaps
        if snap not in snaps:
            raise errors.SnapNotFound(
                **self._state.facts("get the size", image_id, snap)
            )
        return len(snaps[snap])

    def parent_id(self, image_id):
        parent = self._image(image_id).parent
        if parent is None:
            return None
        image, path = parent
        pool_id = self._state.cluster.pool_id(path.pool)
        return pool_id, path.namespace, image.image_id

    def has_clones(self, image_id):
        return any(self._state.cluster.clones_of(self._image(image_id)))

    def clone_ids(self, image_id):
        cluster = self._state.cluster
        try:
            image = self._image(image_id)
        except errors.ImageNotFound:
            return []
        return [
            (cluster.pool_id(pool.name), pool.namespace, clone.image_id)
            for pool, _, _, clone in cluster.clones_of(image)
        ]

    def times(self, image_id):
        made = self._image(image_id).created_at
        return made, made

    def striping(self, image_id):
        return self._image(image_id).striping

    def metadata(self, image_id):
        try:
            return dict(self._image(image_id).metadata)
        except errors.ImageNotFound:
            return {}

    def set_metadata(self, image_id, values, conf=None):
        found = self._image(image_id).metadata
        if conf is not None:
            for key in [key for key in found if key.startswith(CONF_KEY)]:
                del found[key]
        found.update(values, **(conf or {}))
