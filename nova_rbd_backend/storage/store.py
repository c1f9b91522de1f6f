# SPDX-License-Identifier: Apache-2.0

"""Every pool of a host behind one object.

A disk is in the pool where it was made, as long as it lives: that of
libvirt_images_store, that of a storage class, or one that any host has ever
used (see :mod:`.registry`). What is done for all disks of an instance is done
in each of these pools. The registry is read at the start, and again where a
disk that ought to exist is not found: never for a new instance, whose boot
costs no request for it.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from nova_rbd_backend import errors, names
from nova_rbd_backend.ceph import cluster
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.settings import Settings
from nova_rbd_backend.storage import fencing, registry
from nova_rbd_backend.storage.disks import delete, provision
from nova_rbd_backend.storage.images import purge
from nova_rbd_backend.storage_classes import StorageClass

T = TypeVar("T")


class Store:
    """The pools that may hold disks of this host's instances.

    Methods that ask the cluster block.

    :ivar settings: what nova.conf comes down to
    """

    def __init__(self, settings: Settings):
        self.settings = settings
        # Pools of other hosts, too; read from the registry.
        self._registered: tuple[str, ...] = ()

    # one pool

    @property
    def cluster(self) -> cluster.Cluster:
        """The cluster; nothing is opened yet."""
        return cluster.connect(self.settings.cluster)

    def pool(self, name: str | None = None) -> Pool:
        """Return a pool, with the options of the first class that uses it.

        :param name: None: that of libvirt_images_store
        """
        name = name or self.settings.pool
        found = self.settings.class_of_pool(name)
        return Pool(self.cluster, name) if found is None else self.of(found)

    def of(self, storage_class: StorageClass) -> Pool:
        """Return the pool of a class, for images of that class."""
        return Pool(
            self.cluster,
            storage_class.pool,
            options=storage_class.image_options,
        )

    @property
    def snapshots(self) -> Pool:
        """The pool that snapshots of instances go to."""
        return self.pool(self.settings.snapshot_pool)

    # which pools there are

    def pool_names(self) -> tuple[str, ...]:
        """Return all pools known here, that of libvirt_images_store first.

        Asks nothing.
        """
        configured = (each.pool for each in self.settings.classes)
        return tuple(dict.fromkeys((*configured, *self._registered)))

    def read_pools(self) -> tuple[str, ...]:
        """Read which pools other hosts have added.

        :returns: names of the pools that were not known before
        """
        before = self.pool_names()
        self._registered = registry.names(self.pool())
        return tuple(name for name in self.pool_names() if name not in before)

    def add_pool(self, storage_class: StorageClass) -> None:
        """Let all hosts know of a pool before a disk is made in it.

        Known already, as nearly always: done, without a request.
        """
        pool = storage_class.pool
        if pool == self.settings.pool or pool in self._registered:
            return
        registry.add(self.pool(), pool, storage_class.name)
        # If two threads add pools at once one may be lost here: it is added
        # again the next time, which changes nothing.
        self._registered = (*self._registered, pool)

    def start(self) -> None:
        """Tell other hosts of this host's pools, and learn of theirs.

        Removes pools from the registry that the cluster has no more.

        :raises errors.ConfigError: a pool with disks may not be read
        """
        for each in self.settings.storage_classes:
            self.add_pool(each)
        configured = {each.pool for each in self.settings.classes}
        for name in registry.missing(self.pool(), configured):
            registry.remove(self.pool(), name)
        self.read_pools()

    # an instance's disks

    def pool_of(self, image: str, first: str | None = None) -> str | None:
        """Return the pool that has a disk, whole; None: no pool has it.

        :param first: the pool where it most likely is
        """
        known = self.pool_names()
        if first in known:
            known = tuple(dict.fromkeys((first, *known)))
        return self._whole_in(image, known)

    def pool_of_unknown(self, image: str) -> str | None:
        """Do the same in pools that only other hosts have known until now."""
        return self._whole_in(image, self.read_pools())

    def _whole_in(self, image: str, pools: Iterable[str]) -> str | None:
        for name in pools:
            with contextlib.suppress(errors.PoolNotFound):
                if provision.is_whole(self.pool(name), image):
                    return name
        return None

    def disks(self, instance_uuid: str) -> list[str]:
        """Return the names of an instance's disks, in whatever pool."""
        found = self.disks_by_pool(instance_uuid).values()
        return list(itertools.chain.from_iterable(found))

    def disks_by_pool(self, instance_uuid: str) -> dict[str, list[str]]:
        """Return the same, by the pool's name; pools without disks too."""
        prefix = names.DiskName.prefix(instance_uuid)
        return dict(self._in_each(lambda pool: pool.directory.names(prefix)))

    def fence_for_start(self, instance_uuid: str) -> None:
        """Make an instance's disks free for its guest, in whatever pool.

        :raises DiskInUse: a living client has one open
        """
        for _ in self._in_each(
            lambda pool: fencing.fence_for_start(pool, instance_uuid)
        ):
            pass

    def delete(
        self,
        instance_uuid: str,
        only: Callable[[str], bool] = lambda _disk: True,
    ) -> dict[str, delete.DeleteReport]:
        """Free the names of an instance's disks; a purge frees the space.

        :param only: called with each disk's name; returns whether to delete it
        :returns: a report for each pool
        :raises DiskBusy: a disk is in use; all others are deleted
        """
        busy: list[errors.DiskBusy] = []

        def deleted(pool: Pool) -> delete.DeleteReport | None:
            try:
                return delete.delete_disks(
                    pool,
                    instance_uuid,
                    only=only,
                    retention_seconds=self.settings.trash_retention_seconds,
                )
            except errors.DiskBusy as error:
                # A busy disk is not in the way of those in other pools.
                busy.append(error)
                return None

        reports = dict(self._in_each(deleted))
        if busy:
            raise busy[0]
        return {name: found for name, found in reports.items() if found}

    def purge(self) -> list[purge.PurgeReport]:
        """Free the space of what was deleted and is due, in each pool."""
        reports = [report for _, report in self._in_each(purge.purge)]
        # A deleted snapshot waits for the disks booted from it, and a deleted
        # disk for the snapshots made of it.
        if set(self.pool_names()) != {self.settings.snapshot_pool}:
            reports.append(purge.purge(self.snapshots))
            reports += [report for _, report in self._in_each(purge.purge)]
        return reports

    def _in_each(self, work: Callable[[Pool], T]) -> Iterator[tuple[str, T]]:
        """Do the work in each known pool; yield the pool's name and result.

        The pool of a former class may have been deleted: it is skipped, and
        not looked at again.
        """
        for name in self.pool_names():
            try:
                yield name, work(self.pool(name))
            except errors.PoolNotFound:
                if self.settings.class_of_pool(name) is not None:
                    raise
                self._registered = tuple(
                    each for each in self._registered if each != name
                )
