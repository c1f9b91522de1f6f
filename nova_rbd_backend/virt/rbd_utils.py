# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

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
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import nova.conf

from nova_rbd_backend import conf, errors, names
from nova_rbd_backend.storage import (
    capacity,
    cluster,
    fencing,
    offload,
    pool,
    provision,
    purge,
    rollback,
    transfer,
    trash,
)
from nova_rbd_backend.storage_classes import StorageClass
from nova_rbd_backend.virt import faults, known_pools, untold

CONF = nova.conf.CONF
T = TypeVar("T")

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


class RBDDriver:
    """One pool of one cluster, as Nova asks for it.

    :ivar storage_class: what new images get: the first class with that pool
        unless in_class() says otherwise; None: nova.conf has none
    """

    def __init__(
        self,
        pool: str | None = None,
        user: str | None = None,
        ceph_conf: str | None = None,
        connect_timeout: int | None = None,
    ) -> None:
        settings = conf.settings(CONF)
        self.pool = pool or settings.pool
        self.storage_class = settings.class_of_pool(self.pool)
        self.rbd_user = user or settings.user
        self.ceph_conf = ceph_conf or settings.ceph_conf
        self.rbd_connect_timeout = (
            connect_timeout or settings.connect_timeout_seconds
        )
        self._settings = settings

    def _cluster(self) -> cluster.Cluster:
        return cluster.connect(
            cluster.ClusterSettings(
                conf_file=self.ceph_conf or None,
                user=self.rbd_user,
                connect_timeout_seconds=self.rbd_connect_timeout,
                operation_timeout_seconds=(
                    self._settings.operation_timeout_seconds
                ),
                blocklist_seconds=self._settings.blocklist_seconds,
            )
        )

    def _pool(self, name: str | None = None) -> pool.Pool:
        name = name or self.pool
        found = self.storage_class
        if found is None or found.pool != name:
            found = self._settings.class_of_pool(name)
        if found is None:
            return self._cluster().pool(name)
        return self._cluster().pool(name, options=found.image_options)

    @staticmethod
    def _run(work: Callable[[], T], long: bool = False) -> T:
        """Do one piece of work off the event loop, with Nova's exceptions."""
        with faults.as_nova():
            try:
                return offload.run(work, long=long)
            finally:
                untold.tell()

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
        """

        def work() -> int | None:
            try:
                at = names.GlanceLocation.parse(url)
                here = self._cluster()
                if at.fsid != here.fsid():
                    return None
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
    ) -> provision.Facts:
        """Import a local raw file, whole or not at all."""
        return self._run(
            lambda: provision.import_disk(
                self._pool(),
                name,
                base,
                size_bytes,
                dict(metadata or {}),
                workers=self._settings.import_workers,
            ),
            long=True,
        )

    # -- all pools that may have disks

    def _in_each(self, work: Callable[[pool.Pool], T]) -> dict[str, T]:
        """Do it in each known pool; one of a former class may be gone."""
        done: dict[str, T] = {}
        for name in known_pools.names(self._settings):
            try:
                done[name] = work(self._pool(name))
            except errors.PoolNotFound:
                if self._settings.class_of_pool(name) is not None:
                    raise
                known_pools.forget(self._settings, name)
        return done

    def has_more_pools(self) -> bool:
        """Whether a disk may be in another pool than libvirt_images_store."""
        return len(known_pools.names(self._settings)) > 1

    def read_pools(self) -> tuple[str, ...]:
        """Names of all pools that may have disks, as other hosts say too."""

        def work() -> tuple[str, ...]:
            known_pools.read(self._settings)
            return known_pools.names(self._settings)

        return self._run(work)

    def pool_of(self, name: str, first: str | None) -> str | None:
        """The pool that has this disk, whole; None: none of them has.

        :param first: where it most likely is
        """
        known = known_pools.names(self._settings)
        if first in known:
            known = tuple(dict.fromkeys((first, *known)))
        return self._run(lambda: self._whole_in(name, known))

    def pool_of_unknown(self, name: str) -> str | None:
        """The same, of pools that only other hosts have known until now."""
        return self._run(
            lambda: self._whole_in(name, known_pools.read(self._settings))
        )

    def _whole_in(self, name: str, pools: Iterable[str]) -> str | None:
        for each in pools:
            with contextlib.suppress(errors.PoolNotFound):
                if provision.is_whole(self._pool(each), name):
                    return each
        return None

    def add_pool(self, storage_class: StorageClass) -> None:
        """Have all hosts know the class's pool, before a disk is made there.

        Known, as nearly always: nothing is asked.
        """
        if not known_pools.is_added(self._settings, storage_class):
            self._run(lambda: known_pools.add(self._settings, storage_class))

    def pools_with_disks(self, instance_uuid: str) -> list[str]:
        """Names of the pools in which the instance has disks."""
        prefix = names.DiskName.prefix(instance_uuid)
        found = self._run(
            lambda: self._in_each(lambda each: each.names(prefix))
        )
        return [name for name, disks in found.items() if disks]

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

    def fence_for_start(self, instance_uuid: str) -> None:
        """Make the instance's disks free for its guest; dead clients: fenced.

        :raises nova.exception.StorageError: a client that is alive has one
        """
        self._run(
            lambda: self._in_each(
                lambda each: fencing.fence_for_start(each, instance_uuid)
            )
        )

    # -- away with disks

    def delete_disks(
        self, instance_uuid: str, only: Callable[[str], bool] | None = None
    ) -> dict[str, trash.DeleteReport]:
        """Free the names of the instance's disks; space comes back later.

        :returns: a report for each pool
        """
        busy: list[errors.DiskBusy] = []

        def delete(each: pool.Pool) -> trash.DeleteReport | None:
            try:
                return trash.delete_disks(
                    each,
                    instance_uuid,
                    only=only or (lambda _disk: True),
                    retention_seconds=self._settings.trash_retention_seconds,
                )
            except errors.DiskBusy as error:
                # It is not in the way of those in other pools.
                busy.append(error)
                return None

        def work() -> dict[str, trash.DeleteReport]:
            reports = self._in_each(delete)
            if busy:
                raise busy[0]
            return {name: found for name, found in reports.items() if found}

        # A client that holds an image's lock is waited for.
        return self._run(work, long=True)

    def purge(self) -> list[purge.PurgeReport]:
        """Take back the space of what was deleted and is due, in each pool."""
        snapshots = self._settings.snapshot_pool

        def work() -> list[purge.PurgeReport]:
            reports = [*self._in_each(purge.purge).values()]
            # A deleted snapshot waits for the disks booted from it, and a
            # deleted disk for the snapshots that are of it.
            if set(known_pools.names(self._settings)) != {snapshots}:
                reports.append(purge.purge(self._pool(snapshots)))
                reports += self._in_each(purge.purge).values()
            return reports

        return self._run(work, long=True)

    def remove_image(self, name: str) -> None:
        """Delete one disk; not there: done."""
        self._run(
            lambda: trash.delete_disk(
                self._pool(), name, self._settings.trash_retention_seconds
            ),
            long=True,
        )

    def cleanup_volumes(self, filter_fn: Callable[[str], bool]) -> None:
        """Delete the disks whose name the filter admits.

        Outside of :func:`cleanup_scope` nobody knows whose they are: refused,
        since reading every name of the pool costs each delete more as the
        pool grows.
        """
        instance_uuid = getattr(_scope, "instance_uuid", None)
        if instance_uuid is None:
            raise NotImplementedError("cleanup_volumes() without an instance")
        self.delete_disks(instance_uuid, only=filter_fn)


def in_class(storage_class: StorageClass) -> RBDDriver:
    """The pool of a class, for images of that class.

    No argument of RBDDriver, which has those of Nova's own.
    """
    rbd = RBDDriver(pool=storage_class.pool)
    rbd.storage_class = storage_class
    return rbd
