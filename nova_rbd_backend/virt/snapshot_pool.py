# SPDX-License-Identifier: Apache-2.0

"""Snapshots on the cluster, off the event loop and with Nova's exceptions."""

import contextlib
from collections.abc import Iterator, Mapping

from nova_rbd_backend import metadata
from nova_rbd_backend.storage import (
    detaching,
    journal,
    snapshots,
    stream,
)
from nova_rbd_backend.virt import faults, rbd_utils


class SnapshotPool(rbd_utils.RBDDriver):
    """The pool that snapshots go to."""

    def __init__(self, disk_pool: str | None = None) -> None:
        super().__init__()
        self.disk_pool = disk_pool or self.pool
        self.pool = self._settings.snapshot_pool

    # -- making one

    @contextlib.contextmanager
    def sole_maker(self, glance_id: str) -> Iterator[None]:
        """Keep background work of this process away from what is made."""
        with (
            faults.as_nova(),
            snapshots.sole_maker(self._pool(), glance_id),
        ):
            yield

    def begin(self, disk: str, glance_id: str) -> snapshots.Making:
        """Remember what is to be made."""
        return self._run(
            lambda: snapshots.begin(
                self._pool(), self._pool(self.disk_pool), disk, glance_id
            )
        )

    def snap(self, making: snapshots.Making) -> None:
        """Keep the disk's content as it is now."""
        self._run(lambda: snapshots.snap(making))

    def publish(
        self, making: snapshots.Making, metadata: Mapping[str, str]
    ) -> snapshots.Snapshot:
        """Make the snapshot's image."""
        return self._run(
            lambda: snapshots.publish(self._pool(), making, metadata)
        )

    def undo(self, making: snapshots.Making) -> None:
        """Remove what was made; what cannot be now, the next run does."""
        self._run(lambda: snapshots.undo(self._pool(), making), long=True)

    def reader(self, snapshot: snapshots.Snapshot) -> stream.DiskReader:
        """Read it as a file, from the thread that calls read()."""
        image_id = snapshot.image_id
        return stream.DiskReader(lambda: self._pool().open(image_id=image_id))

    # -- what Glance knows of it

    def asking(self, entry: journal.Entry) -> journal.Entry:
        """Remember that Glance is being told of it."""
        return self._record(entry, journal.Offer.UNDER_WAY)

    def accepted(self, entry: journal.Entry) -> journal.Entry:
        """Remember that it is Glance's now."""
        return self._record(entry, journal.Offer.ACCEPTED)

    def refused(self, entry: journal.Entry) -> journal.Entry:
        """Remember that Glance does not know it."""
        return self._record(entry, journal.Offer.NOT_MADE)

    def _record(
        self, entry: journal.Entry, offer: journal.Offer
    ) -> journal.Entry:
        return self._run(
            lambda: journal.record_offer(self._pool(), entry, offer)
        )

    def withdraw(self, entry: journal.Entry) -> None:
        """Remove one that Glance does not know."""
        self._run(lambda: snapshots.withdraw(self._pool(), entry), long=True)

    # -- detaching it

    def abandoned(self) -> list[journal.Entry]:
        """Those whose maker died before they were Glance's for certain."""
        return self._run(lambda: detaching.abandoned(self._pool()))

    def may_be_known(self, entry: journal.Entry) -> bool:
        """Whether Glance has to be asked for an abandoned one."""
        return self._run(lambda: detaching.may_be_known(self._pool(), entry))

    def instance_of(self, entry: journal.Entry) -> str | None:
        """The UUID of the instance that it is of; None: it does not say."""
        image_id = entry.image_id
        return self._run(lambda: self._pool().metadata(image_id)).get(
            metadata.INSTANCE
        )

    def remove_unknown(self, entry: journal.Entry) -> bool:
        """Remove an abandoned one; False: it is not any more."""
        return self._run(
            lambda: detaching.remove_unknown(self._pool(), entry), long=True
        )

    def waiting(self) -> list[journal.Entry]:
        """Those that nobody detaches yet."""
        limit = self._settings.clone_depth_soft_limit
        return self._run(lambda: detaching.waiting(self._pool(), limit))

    def settling(self) -> bool:
        """Whether there are some that are to be let go in a while."""
        return self._run(lambda: detaching.settling(self._pool()))

    def is_full(self) -> bool:
        """Whether as many as may be are being detached."""
        limit = self._settings.detach_at_once
        return self._run(lambda: detaching.at_work(self._pool()) >= limit)

    def detach(self, entry: journal.Entry) -> detaching.Detached | None:
        """Detach one; None: another host is at it."""
        return self._run(
            lambda: detaching.detach(self._pool(), entry), long=True
        )
