# SPDX-License-Identifier: Apache-2.0

"""image-create: make an image in Glance from a disk while its guest runs.

The snapshot is a clone in the pool for snapshots, and Glance gets its
location. If Glance does not accept locations the clone's data is uploaded, and
the clone is removed. In both cases only data that the disk has is copied.
"""

import contextlib
import dataclasses
import functools
import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

import nova.conf
from nova import exception
from nova.virt import images
from oslo_log import log as logging
from oslo_utils import fileutils

from nova_rbd_backend import metadata, names
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.ceph.stream import ImageReader
from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.journal import Offer
from nova_rbd_backend.storage.snapshots import make as snapshots
from nova_rbd_backend.virt import edge
from nova_rbd_backend.virt.background.purger import PURGER
from nova_rbd_backend.virt.snapshot import glance, quiesce
from nova_rbd_backend.virt.snapshot.detacher import DETACHER

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ToGlance:
    """Makes one disk the content of one queued image of Glance's."""

    context: Any
    instance: Any
    disk: names.ImagePath
    image_id: str
    image_format: str

    @functools.cached_property
    def _pool(self) -> Pool:
        return edge.store().snapshots

    def run(self) -> None:
        """Make the snapshot; on return Glance's image is active.

        :raises nova.exception.NovaException: nothing of the snapshot is left
        """
        started = time.monotonic()
        try:
            with (
                edge.as_nova(),
                snapshots.sole_maker(self._pool, self.image_id),
            ):
                how = self._give(self._make())
        finally:
            # Also after a failure: they undo what could not be undone here.
            DETACHER.start()
            PURGER.start()
        LOG.info(
            "Snapshot of %(disk)s is image %(image)s (%(how)s) after "
            "%(seconds).3f s",
            {
                "disk": self.disk,
                "image": self.image_id,
                "how": how,
                "seconds": time.monotonic() - started,
            },
            instance=self.instance,
        )

    def _make(self) -> snapshots.Snapshot:
        disk = self.disk.image
        disk_pool = edge.store().pool(self.disk.pool)
        facts = metadata.describe(
            names.DiskName.parse(disk),
            project_id=self.instance.project_id,
            image_id=self.instance.image_ref,
        )
        attempt = edge.run(
            lambda: snapshots.begin(
                self._pool, disk_pool, disk, self.image_id
            ),
            waits=True,
        )
        try:
            with quiesce.frozen():
                # Takes no slot, because the guest must not stay frozen until
                # one is free. Nova limits how many snapshots run at a time
                # (max_concurrent_snapshots).
                edge.run(lambda: snapshots.snap(attempt))
            return edge.run(
                lambda: snapshots.publish(self._pool, attempt, facts)
            )
        except BaseException:
            self._try(lambda: snapshots.undo(self._pool, attempt))
            raise

    def _give(self, snapshot: snapshots.Snapshot) -> str:
        """Give the snapshot to Glance; return how that was done."""
        entry = snapshot.detachment
        if self.image_format == "raw":
            entry = self._record(entry, Offer.UNDER_WAY)
            facts, url = self._glance_metadata(), snapshot.location.url
            try:
                taken = glance.offer(
                    *(self.context, self.image_id, facts, url),
                    snapshot.size_bytes,
                )
            except (exception.ImageNotFound, glance.OtherData):
                self._try(lambda: snapshots.remove(self._pool, entry))
                raise
            # After any other error Glance may have it: the detacher will ask.
            if taken:
                # The snapshot is Glance's now, so no error is raised any more.
                self._try(
                    lambda: journal.record_offer(
                        self._pool, entry, Offer.ACCEPTED
                    ),
                    long=False,
                )
                return f"location {url}"
            entry = self._record(entry, Offer.NOT_MADE)
        try:
            self._upload(snapshot)
        finally:
            self._try(lambda: snapshots.remove(self._pool, entry))
        return "uploaded"

    def _record(self, entry: journal.Entry, offer: Offer) -> journal.Entry:
        return edge.run(lambda: journal.record_offer(self._pool, entry, offer))

    def _upload(self, snapshot: snapshots.Snapshot) -> None:
        if self.image_format == "raw":
            # The thread that calls read() opens and reads the image.
            reader = ImageReader(
                lambda: self._pool.open(image_id=snapshot.image_id)
            )
            with contextlib.closing(reader):
                self._send(reader, snapshot.size_bytes)
            return
        # Other formats have to be written as a whole before they can be sent.
        folder = CONF.libvirt.snapshots_directory
        fileutils.ensure_tree(folder)
        settings = edge.settings()
        source = names.ImagePath(self._pool.name, "", snapshot.image)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            path = os.path.join(temporary, snapshot.image)
            images.convert_image(
                source.for_qemu(settings.user, settings.ceph_conf),
                path,
                "raw",
                self.image_format,
            )
            with open(path, "rb") as file:
                self._send(file, os.path.getsize(path))

    def _send(self, data: glance.Rewindable, size_bytes: int) -> None:
        facts = self._glance_metadata()
        glance.upload(self.context, self.image_id, facts, data, size_bytes)

    def _glance_metadata(self) -> dict[str, str]:
        """Return the properties without which an image cannot become active.

        Nova sets the same properties later (driver.py,
        _create_snapshot_metadata), when they cannot be changed any more.
        """
        meta = self.instance.image_meta
        facts = {"disk_format": self.image_format, "container_format": "bare"}
        if meta.obj_attr_is_set("container_format"):
            facts["container_format"] = meta.container_format
        return facts

    def _try(self, work: Callable[[], object], long: bool = True) -> None:
        """Do the work now or, if it fails, leave it to the background.

        An error is only logged, because the error that came before it says
        more.
        """
        try:
            edge.run(work, long=long)
        except Exception as error:
            LOG.warning(
                "The rest of snapshot %s is left to the background: %s",
                self.image_id,
                error,
                instance=self.instance,
            )
