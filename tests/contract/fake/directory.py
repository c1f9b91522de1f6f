# SPDX-License-Identifier: Apache-2.0

from nova_rbd_backend import errors


class FakeDirectory:
    def __init__(self, state):
        self._state = state

    def names(self, prefix):
        return list(self.ids(prefix))

    def ids(self, prefix):
        return {
            name: image.image_id
            for name, image in sorted(self._state.images.items())
            if name.startswith(prefix)
        }

    def exists(self, image):
        return image in self._state.images

    def image_id(self, image):
        found = self._state.images.get(image)
        return found.image_id if found else None

    def existing_id(self, image, operation):
        return self._state.by_name(operation, image).image_id

    listed_id = image_id

    def listed_name(self, image_id):
        for name, image in self._state.images.items():
            if image.image_id == image_id:
                return name
        return None

    def publish(self, draft, image_id, name):
        if self.exists(name):
            raise errors.ImageExists(**self._state.facts("name", name))
        if self.image_id(draft) != image_id:
            raise errors.TakenOver(**self._state.facts("create", name))
        self._state.images[name] = self._state.images.pop(draft)

    def finish_publishing(self, draft, name):
        """Do nothing, since publish() is a single step here."""
