# SPDX-License-Identifier: Apache-2.0

import datetime

from nova_rbd_backend import errors
from nova_rbd_backend.ceph.trash import TrashedImage


class FakeTrash:
    def __init__(self, state):
        self._state = state

    def move(self, name, retention_seconds=0):
        image = self._state.by_name("move to the trash", name)
        until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(
            seconds=retention_seconds
        )
        del self._state.images[name]
        trashed = TrashedImage(image.image_id, name, until)
        self._state.trashed[image.image_id] = (trashed, image)

    def remove(self, image_id, force=False):
        operation = "remove from the trash"
        trashed, image = self._get(operation, image_id)
        kept = trashed.kept_until > datetime.datetime.now(datetime.UTC)
        if kept and not force:
            raise errors.NotPermitted(**self._state.facts(operation, image_id))
        self._state.check_removable(operation, image, image_id)
        del self._state.trashed[image_id]

    def restore(self, image_id, name):
        operation = "restore from the trash"
        _, image = self._get(operation, image_id)
        if name in self._state.images:
            raise errors.ImageExists(**self._state.facts(operation, name))
        del self._state.trashed[image_id]
        self._state.images[name] = image

    def entries(self):
        return [trashed for trashed, _ in self._state.trashed.values()]

    def get(self, image_id):
        return self._state.trashed.get(image_id, (None,))[0]

    def finish_move(self, image_id, name):
        """Do nothing, since move() is a single step here."""

    def _get(self, operation, image_id):
        if image_id not in self._state.trashed:
            raise errors.ImageNotFound(
                **self._state.facts(operation, image_id)
            )
        return self._state.trashed[image_id]
