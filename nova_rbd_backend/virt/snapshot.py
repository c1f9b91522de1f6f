# SPDX-License-Identifier: Apache-2.0

"""image-create: a disk becomes an image of Glance's while its guest runs on.

The snapshot is a clone in the pool for snapshots, and Glance gets its
location. Where Glance takes none, the clone's data is uploaded and the clone
goes again. Either way no copy is made here of what the disk does not hold.
"""

import os
import tempfile
import time
from typing import Any

import nova.conf
from nova import exception
from nova.virt import images
from oslo_log import log as logging
from oslo_utils import fileutils

from nova_rbd_backend import metadata, names
from nova_rbd_backend.storage import snapshots
from nova_rbd_backend.virt import image_service, quiesce
from nova_rbd_backend.virt.detacher import DETACHER
from nova_rbd_backend.virt.purger import PURGER
from nova_rbd_backend.virt.snapshot_pool import SnapshotPool

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
        self._storage = SnapshotPool(disk.pool)

    def run(self) -> None:
        """Make the snapshot; on return Glance's image is active.

        :raises nova.exception.NovaException: nothing of it is left
        """
        started = time.monotonic()
        try:
            with self._storage.sole_maker(self._image_id):
                how = self._give(self._made())
        finally:
            # After a failure too: what could not be undone is done there.
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

    def _made(self) -> snapshots.Snapshot:
        making = self._storage.begin(self._disk.image, self._image_id)
        try:
            with quiesce.frozen():
                self._storage.snap(making)
            return self._storage.publish(making, self._image_metadata())
        except BaseException:
            self._quietly(self._storage.undo, making)
            raise

    def _image_metadata(self) -> dict[str, str]:
        return metadata.describe(
            names.DiskName.parse(self._disk.image),
            project_id=self._instance.project_id,
            image_id=self._instance.image_ref,
        )

    def _give(self, snapshot: snapshots.Snapshot) -> str:
        """Give it to Glance; how that was done."""
        entry = snapshot.detachment
        if self._format == "raw":
            entry = self._storage.asking(entry)
            try:
                taken = image_service.offer(
                    self._context,
                    self._image_id,
                    self._glance_metadata(),
                    snapshot.location.url,
                )
            except exception.ImageNotFound:
                self._quietly(self._storage.withdraw, entry)
                raise
            # Any other error: Glance may have it. The detacher will ask.
            if taken:
                # It is Glance's now: nothing may fail any more.
                self._quietly(self._storage.accepted, entry)
                return f"location {snapshot.location.url}"
            entry = self._storage.refused(entry)
        try:
            self._upload(snapshot)
        finally:
            self._quietly(self._storage.withdraw, entry)
        return "uploaded"

    def _upload(self, snapshot: snapshots.Snapshot) -> None:
        if self._format == "raw":
            reader = self._storage.reader(snapshot)
            try:
                self._send(reader, snapshot.size_bytes)
            finally:
                reader.close()
            return
        # Another format has to be written as a whole before it can be sent.
        folder = CONF.libvirt.snapshots_directory
        fileutils.ensure_tree(folder)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            path = os.path.join(temporary, snapshot.image)
            images.convert_image(
                names.ImagePath(
                    self._storage.pool, "", snapshot.image
                ).for_qemu(self._storage.rbd_user, self._storage.ceph_conf),
                path,
                "raw",
                self._format,
            )
            with open(path, "rb") as file:
                self._send(file, os.path.getsize(path))

    def _send(self, data: Any, size_bytes: int) -> None:
        image_service.upload(
            self._context,
            self._image_id,
            self._glance_metadata(),
            data,
            size_bytes,
        )

    def _glance_metadata(self) -> dict[str, str]:
        """What an image needs before it can be active.

        As Nova is going to set it after this (driver.py,
        _create_snapshot_metadata): it cannot be changed any more.
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

    def _quietly(self, act: Any, what: Any) -> None:
        """Do it now, else in the background; the first error says more."""
        try:
            act(what)
        except Exception as error:
            LOG.warning(
                "The rest of snapshot %s is left to the background: %s",
                self._image_id,
                error,
                instance=self._instance,
            )
