# SPDX-License-Identifier: Apache-2.0

"""RBDDriver under Nova's method names, on top of storage/.

Nova's own modules look ``nova.storage.rbd_utils.RBDDriver`` up when they call
it (migration.py:_update_rbd_xml, image/glance.py:rbd_download,
driver.py:unrescue; Nova 26 to 34), so that rebinding the one attribute
reaches them all.  Unlike theirs it holds no connection of its own: every
method is one piece of work on the process's shared connection, done off the
event loop.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from nova import exception
from oslo_log import log as logging

from nova_rbd_backend import errors, names
from nova_rbd_backend.storage import (
    capacity,
    provision,
    rollback,
    transfer,
    trash,
)
from nova_rbd_backend.storage_classes import StorageClass
from nova_rbd_backend.virt import every_pool

LOG = logging.getLogger(__name__)

# Green under eventlet, since it is made from the patched module: one value
# for each request.
_scope = threading.local()


@contextlib.contextmanager
def cleanup_scope(instance_uuid: str) -> Iterator[None]:
    """Let cleanup_volumes() know whose disks its filter can match.

    Nova hands cleanup_volumes() a filter over the names of the whole pool;
    within this scope only the instance's own names are read.
    """
    _scope.instance_uuid = instance_uuid
    try:
        yield
    finally:
        del _scope.instance_uuid


def _refuse_disk(pool: str, image: str) -> None:
    """Refuse a disk as the image of another: it may be anybody's.

    Who may set an image's locations may name any that Nova's user can read,
    while neither Glance nor Nova gives the name of a disk to an image. Not
    fetched from Glance instead: its user may read disks too.

    :raises LocationOfDisk: it has a disk's name
    """
    if names.DiskName.parse(image):
        raise errors.LocationOfDisk(
            "no image may be at an instance's disk",
            operation="use the location of an image",
            pool=pool,
            image=image,
        )


class RBDDriver(every_pool.EveryPool):
    """One pool of one cluster, as Nova asks for it."""

    # -- the cluster

    def get_mon_addrs(
        self, strip_brackets: bool = True
    ) -> tuple[list[str], list[str]]:
        """Hosts and ports of the monitors, from the live connection."""
        found = self._run(lambda: self._cluster().mon_addresses())
        hosts = [
            f"[{mon.host}]"
            if ":" in mon.host and not strip_brackets
            else mon.host
            for mon in found
        ]
        return hosts, [str(mon.port) for mon in found]

    def fsid(self) -> str:
        """The cluster's id."""
        return self._run(lambda: self._cluster().fsid())

    def get_pool_info(self) -> dict[str, int]:
        """Usable bytes of the pool: total, free and used."""
        of_class = self.storage_class
        data_pool = of_class.image_options.data_pool if of_class else None

        def work() -> capacity.Capacity:
            return self._cluster().capacity(self.pool, data_pool)

        found = self._run(work)
        return {
            "total": found.total_bytes,
            "free": found.free_bytes,
            "used": found.used_bytes,
        }

    # -- Glance's locations

    def parent_size(self, url: str) -> int | None:
        """Bytes of the image at Glance's location; None: cannot be cloned.

        That is: not in RBD, in another cluster, or not readable by our user.

        :raises nova.exception.StorageError: it is an instance's disk
        """

        def work() -> int | None:
            try:
                at = names.GlanceLocation.parse(url)
                here = self._cluster()
                if at.fsid != here.fsid():
                    return None
                _refuse_disk(at.pool, at.image)
                return here.pool(at.pool).snap_size_bytes(at.image, at.snap)
            except (
                errors.InvalidLocation,
                errors.NotFound,
                errors.NotPermitted,
            ):
                return None

        return self._run(work)

    # -- making disks

    def clone(
        self,
        image_location: Mapping[str, Any],
        dest_name: str,
        size_bytes: int | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> provision.Facts:
        """Clone Glance's image, whole or not at all; grow it to the size."""
        location = names.GlanceLocation.parse(image_location["url"])
        return self._run(
            lambda: provision.clone_disk(
                self._pool(),
                dest_name,
                location,
                size_bytes,
                dict(metadata or {}),
                self._settings.clone_depth_hard_limit,
            ),
            # A disk with too many parents is copied.
            long=names.is_snapshot(location.image),
        )

    def import_image(
        self,
        base: str,
        name: str,
        size_bytes: int | None = None,
        metadata: Mapping[str, str] | None = None,
        progress: transfer.Progress | None = None,
    ) -> provision.Facts:
        """Import a local raw file, whole or not at all."""
        return self._run(
            lambda: provision.import_disk(
                self._pool(),
                name,
                base,
                size_bytes,
                dict(metadata or {}),
                progress,
                self._settings.import_workers,
            ),
            long=True,
        )

    # -- one disk

    def exists(self, name: str) -> bool:
        """Whether the disk is there and whole."""
        return self._run(lambda: provision.is_whole(self._pool(), name))

    def size(self, name: str) -> int:
        """Bytes of the virtual disk."""

        def work() -> int:
            pool = self._pool()
            image_id = pool.image_id(name)
            if image_id is None:
                raise errors.ImageNotFound(
                    operation="get the size", pool=self.pool, image=name
                )
            return pool.image_size_bytes(image_id)

        return self._run(work)

    def resize(self, name: str, size: int) -> None:
        """Grow to ``size`` bytes; already as big or bigger: done."""
        self._run(lambda: provision.grow(self._pool(), name, size))

    def flatten(self, volume: str) -> None:
        """Detach from the parent by copying its data; no parent: done."""
        self._on_disk(volume, lambda disk: disk.flatten(), long=True)

    def create_snap(self, volume: str, name: str) -> None:
        """Keep the disk's content as it is now under this name.

        A snap of that name is replaced: it is of an earlier attempt, and
        going back to it would lose what the guest wrote since.
        """

        def work(disk: Any) -> None:
            disk.remove_snap(name)
            disk.create_snap(name)

        self._on_disk(volume, work)

    def remove_snap(self, volume: str, name: str) -> None:
        """Remove the snap, protected or not; not there: done."""
        self._on_disk(volume, lambda disk: disk.remove_snap(name))

    def rollback_to_snap(self, volume: str, name: str) -> None:
        """Put the disk's content back to the snap's."""
        self._run(
            lambda: rollback.roll_back(self._pool(), volume, name), long=True
        )

    def export_image(
        self, base: str, name: str, snap: str, pool: str | None = None
    ) -> None:
        """Write the snap's allocated extents into the local file ``base``."""

        def work() -> None:
            if pool is not None:  # that is where Glance says its image is
                _refuse_disk(pool, name)
            with self._pool(pool).open(name, snap=snap) as disk:
                transfer.export(disk, base)

        self._run(work, long=True)

    def _on_disk(
        self, name: str, work: Callable[[Any], None], long: bool = False
    ) -> None:
        """Open for writing, work and close in one go, off the event loop."""

        def whole() -> None:
            with self._pool().open(name, read_only=False) as disk:
                work(disk)

        self._run(whole, long=long)

    # -- away with disks

    def remove_image(self, name: str) -> None:
        """Delete one disk; not there: done."""
        self._run(
            lambda: trash.delete_disk(
                self._pool(), name, self._settings.trash_retention_seconds
            ),
            waits=True,
        )

    def cleanup_volumes(self, filter_fn: Callable[[str], bool]) -> None:
        """Delete the disks whose name the filter admits.

        Outside of :func:`cleanup_scope` nobody knows whose they are: refused,
        since reading every name of the pool costs each delete more as the
        pool grows. Nova cannot do the rest of an unrescue once more, so that
        what cannot be deleted stays for the next rescue or delete.
        """
        instance_uuid = getattr(_scope, "instance_uuid", None)
        if instance_uuid is None:
            raise NotImplementedError("cleanup_volumes() without an instance")
        try:
            self.delete_disks(instance_uuid, only=filter_fn)
        except exception.StorageError as error:
            LOG.warning(
                "Rescue disks of instance %(uuid)s stay in Ceph: %(error)s",
                {"uuid": instance_uuid, "error": error},
            )


def in_class(storage_class: StorageClass) -> RBDDriver:
    """The pool of a class, for images of that class.

    No argument of RBDDriver, which has those of Nova's own.
    """
    rbd = RBDDriver(pool=storage_class.pool)
    rbd.storage_class = storage_class
    return rbd
