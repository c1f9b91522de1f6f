# SPDX-License-Identifier: Apache-2.0

"""image-create: a disk becomes an image of Glance's while its guest runs on.

The snapshot is a clone in the pool for snapshots, and Glance gets its
location. If Glance takes no location, the clone's data is uploaded, and the
clone is removed. Either way nothing is copied that the disk does not hold.
"""

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


class ToGlance:
    """One disk's way into one queued image of Glance's."""

    def __init__(
        self,
        context: Any,
        instance: Any,
        disk: names.ImagePath,
        image_id: str,
        image_format: str,
    ) -> None:
        self._context = context
        self._instance = instance
        self._disk = disk
        self._image_id = image_id
        self._format = image_format
        self._disk_pool = edge.store().pool(disk.pool)
        self._pool = edge.store().snapshots

    def run(self) -> None:
        """Make the snapshot; on return Glance's image is active.

        :raises nova.exception.NovaException: nothing of the snapshot is left
        """
        started = time.monotonic()
        try:
            with (
                edge.as_nova(),
                snapshots.sole_maker(self._pool, self._image_id),
            ):
                how = self._give(self._make())
        finally:
            # After a failure too: what could not be undone is undone there.
            DETACHER.start()
            PURGER.start()
        LOG.info(
            "Snapshot of %(disk)s is image %(image)s (%(how)s) after "
            "%(seconds).3f s",
            {
                "disk": self._disk,
                "image": self._image_id,
                "how": how,
                "seconds": time.monotonic() - started,
            },
            instance=self._instance,
        )

    def _make(self) -> snapshots.Snapshot:
        attempt = edge.run(
            lambda: snapshots.begin(
                self._pool, self._disk_pool, self._disk.image, self._image_id
            )
        )
        said = self._image_metadata()
        try:
            with quiesce.frozen():
                edge.run(lambda: snapshots.snap(attempt))
            return edge.run(
                lambda: snapshots.publish(self._pool, attempt, said)
            )
        except BaseException:
            self._try(lambda: snapshots.undo(self._pool, attempt))
            raise

    def _image_metadata(self) -> dict[str, str]:
        return metadata.describe(
            names.DiskName.parse(self._disk.image),
            project_id=self._instance.project_id,
            image_id=self._instance.image_ref,
        )

    def _give(self, snapshot: snapshots.Snapshot) -> str:
        """Give the snapshot to Glance; return how that was done."""
        entry = snapshot.detachment
        if self._format == "raw":
            entry = self._record(entry, Offer.UNDER_WAY)
            try:
                taken = glance.offer(
                    self._context,
                    self._image_id,
                    self._glance_metadata(),
                    snapshot.location.url,
                )
            except exception.ImageNotFound:
                self._remove(entry)
                raise
            # After any other error Glance may have it: the detacher will ask.
            if taken:
                # It is Glance's now: nothing may fail any more.
                self._try(
                    lambda: journal.record_offer(
                        self._pool, entry, Offer.ACCEPTED
                    )
                )
                return f"location {snapshot.location.url}"
            entry = self._record(entry, Offer.NOT_MADE)
        try:
            self._upload(snapshot)
        finally:
            self._remove(entry)
        return "uploaded"

    def _record(self, entry: journal.Entry, offer: Offer) -> journal.Entry:
        return edge.run(lambda: journal.record_offer(self._pool, entry, offer))

    def _remove(self, entry: journal.Entry) -> None:
        self._try(lambda: snapshots.remove(self._pool, entry))

    def _upload(self, snapshot: snapshots.Snapshot) -> None:
        if self._format == "raw":
            # Opened and read by the thread that calls read().
            reader = ImageReader(
                lambda: self._pool.open(image_id=snapshot.image_id)
            )
            try:
                self._send(reader, snapshot.size_bytes)
            finally:
                reader.close()
            return
        # Another format has to be written as a whole before it can be sent.
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
                self._format,
            )
            with open(path, "rb") as file:
                self._send(file, os.path.getsize(path))

    def _send(self, data: Any, size_bytes: int) -> None:
        glance.upload(
            self._context,
            self._image_id,
            self._glance_metadata(),
            data,
            size_bytes,
        )

    def _glance_metadata(self) -> dict[str, str]:
        """Return what an image needs before it can be active.

        Nova will set the same afterwards (driver.py,
        _create_snapshot_metadata), when it cannot be changed any more.
        """
        meta = self._instance.image_meta
        return {
            "disk_format": self._format,
            "container_format": (
                meta.container_format
                if meta.obj_attr_is_set("container_format")
                else "bare"
            ),
        }

    def _try(self, work: Callable[[], object]) -> None:
        """Do it now, else leave it to the background.

        The first error says more than one that follows from it.
        """
        try:
            edge.run(work, long=True)
        except Exception as error:
            LOG.warning(
                "The rest of snapshot %s is left to the background: %s",
                self._image_id,
                error,
                instance=self._instance,
            )
