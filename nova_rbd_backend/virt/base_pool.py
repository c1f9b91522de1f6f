# SPDX-License-Identifier: Apache-2.0

"""The pool that bases are in, as Nova's side asks for it."""

from collections.abc import Mapping

from nova_rbd_backend import errors
from nova_rbd_backend.storage import (
    base_ageing,
    base_cache,
    provision,
    transfer,
)
from nova_rbd_backend.virt import rbd_utils


class BasePool(rbd_utils.RBDDriver):
    """The pool of the disks, where their bases are."""

    def size_of(self, name: str) -> int | None:
        """Bytes of the virtual disk of a base; None: it is not there."""
        return self._run(lambda: base_cache.size_bytes(self._pool(), name))

    def begin(self, name: str) -> base_cache.Making | None:
        """Take on making a base; None: another does, or has."""
        return self._run(
            lambda: base_cache.begin(self._pool(), name),
            # What a dead maker left may be busy for a while.
            long=True,
        )

    def finish(
        self,
        making: base_cache.Making,
        path: str,
        facts: Mapping[str, str],
        progress: transfer.Progress,
    ) -> base_cache.Made | None:
        """Make the base of a local raw file, whole or not at all.

        :returns: None: another process took us for dead and is at it
        """

        def work() -> base_cache.Made | None:
            try:
                return base_cache.finish(
                    self._pool(),
                    making,
                    path,
                    facts,
                    progress,
                    self._settings.import_workers,
                )
            except errors.TakenOver:
                return None

        return self._run(work, long=True)

    def touch(self, name: str) -> None:
        """Keep a base from ageing for some more time."""
        self._run(lambda: base_ageing.touch(self._pool(), name))

    def give_up(self, making: base_cache.Making) -> None:
        """Let another process make it; finished: done."""
        self._run(lambda: base_cache.give_up(making))

    def clone_from(
        self,
        base: str,
        name: str,
        size_bytes: int | None,
        metadata: Mapping[str, str],
    ) -> provision.Facts | None:
        """Clone a disk from a base; None: the base is gone."""

        def work() -> provision.Facts | None:
            there = self._pool()
            try:
                return provision.clone_disk(
                    there,
                    name,
                    base_cache.snap(there, base),
                    size_bytes,
                    dict(metadata),
                )
            except errors.NotFound as error:
                if error.image != base:
                    raise
                return None

        return self._run(work)

    def age(
        self, unused_seconds: int | None, period_seconds: int
    ) -> base_ageing.AgeReport | None:
        """Remove bases that nothing hangs on; None: not this host's turn."""
        return self._run(
            lambda: base_ageing.age(
                self._pool(), unused_seconds, period_seconds
            ),
            long=True,
        )
