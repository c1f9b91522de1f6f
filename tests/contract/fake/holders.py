# SPDX-License-Identifier: Apache-2.0

"""Only this process ever holds an image here, and nothing is mirrored."""

from nova_rbd_backend import errors
from nova_rbd_backend.ceph.holders import Answer
from tests.contract.fake.state import OWN_ID


class FakeHolders:
    def __init__(self, state):
        self._state = state

    def locks(self, image_id):
        try:
            lock = self._state.by_id("look at the lock of", image_id).lock
        except errors.ImageNotFound:
            return ()
        return () if lock is None else (lock,)

    def break_lock(self, image_id, lock):
        if lock in self.locks(image_id):
            self._state.by_id("break the lock of", image_id).lock = None

    def ask_watchers(self, image_ids, limit_seconds):
        return {image_id: self._answer(image_id) for image_id in image_ids}

    def is_mirrored(self, image_id):
        return False

    def ask_mirrors(self, limit_seconds):
        return Answer()

    def _answer(self, image_id):
        try:
            writers = self._state.by_id(
                "ask the watchers of", image_id
            ).writers
        except errors.ImageNotFound:
            return Answer()
        return Answer(frozenset([OWN_ID] if writers else []))
