# SPDX-License-Identifier: Apache-2.0

"""Every pool of a host behind one object.

A disk stays in the pool where it was made: the pool of libvirt_images_store,
of a storage class, or of a class that any host has ever used (see
:mod:`.registry`). Work on all disks of an instance is done in each of these
pools. The registry is read at the start, and again if a disk that ought to
exist is not found. The boot of a new instance costs no request for it.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterable
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
    """The pools that may hold disks of this host's instances. Calls block."""

    def __init__(self, settings: Settings):
        self.settings = settings
        # From the registry, so that pools of other hosts are among them.
        self._registered: tuple[str, ...] = ()

    # one pool

    @property
    def cluster(self) -> cluster.Cluster:
        """The cluster; opens nothing."""
        return cluster.connect(self.settings.cluster)

    def pool(self, name: str | None = None) -> Pool:
        """Return a pool, with the options of the first class that uses it.

        :param name: None: that of libvirt_images_store
        """
        name = name or self.settings.pool
        found = self.settings.class_of_pool(name)
        return Pool(self.cluster, name) if found is None else self.of(found)

    def of(self, storage_class: StorageClass) -> Pool:
        """Return the pool of a class, with the options of that class."""
        options = storage_class.image_options
        return Pool(self.cluster, storage_class.pool, options=options)

    @property
    def snapshots(self) -> Pool:
        """The pool that snapshots of instances go to."""
        return self.pool(self.settings.snapshot_pool)

    # which pools there are

    def pool_names(self) -> tuple[str, ...]:
        """Return the names of the known pools; sends no request.

        The first is the pool of libvirt_images_store.
        """
        configured = (each.pool for each in self.settings.classes)
        return tuple(dict.fromkeys((*configured, *self._registered)))

    def read_pools(self) -> tuple[str, ...]:
        """Read the registry; return the pools that were not known before."""
        before = self.pool_names()
        self._registered = registry.names(self.pool())
        return tuple(name for name in self.pool_names() if name not in before)

    def add_pool(self, storage_class: StorageClass) -> None:
        """Register a pool for all hosts, before a disk is made in it.

        Sends no request if the pool is known already, as it nearly always is.
        """
        pool = storage_class.pool
        if pool == self.settings.pool or pool in self._registered:
            return
        registry.add(self.pool(), pool, storage_class.name)
        # If two threads add pools at the same time, one pool may be lost here.
        # It is added again the next time, which changes nothing.
        self._registered = (*self._registered, pool)

    def start(self) -> None:
        """Register this host's pools, and read the pools of other hosts.

        Removes pools from the registry that do not exist any more.

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
        """Return the name of the pool that has this disk, whole, or None.

        :param first: the pool where it most likely is
        """
        known = self.pool_names()
        return self._whole_in(image, sorted(known, key=lambda n: n != first))

    def pool_of_unknown(self, image: str) -> str | None:
        """Do the same in the pools that only other hosts knew until now."""
        return self._whole_in(image, self.read_pools())

    def _whole_in(self, image: str, pools: Iterable[str]) -> str | None:
        for name in pools:
            with contextlib.suppress(errors.PoolNotFound):
                if provision.is_whole(self.pool(name), image):
                    return name
        return None

    def disks(self, instance_uuid: str) -> list[str]:
        """Return the names of an instance's disks in all pools."""
        found = self.disks_by_pool(instance_uuid).values()
        return list(itertools.chain.from_iterable(found))

    def disks_by_pool(self, instance_uuid: str) -> dict[str, list[str]]:
        """Return the names of an instance's disks for each pool's name."""
        prefix = names.DiskName.prefix(instance_uuid)
        return self._in_each(lambda pool: pool.directory.names(prefix))

    def fence_for_start(self, instance_uuid: str) -> None:
        """Fence the dead clients of an instance's disks in all pools.

        :raises DiskInUse: a living client has a disk open
        """
        self._in_each(
            lambda pool: fencing.fence_for_start(pool, instance_uuid)
        )

    def delete(
        self,
        instance_uuid: str,
        only: Callable[[str], bool] = lambda _disk: True,
    ) -> dict[str, delete.DeleteReport]:
        """Free the names of an instance's disks in all pools.

        A purge frees their space.

        :param only: called with each disk's name; returns whether to delete it
        :returns: a report for each pool's name
        :raises DiskBusy: a disk is in use; all others are deleted
        """
        busy: list[errors.DiskBusy] = []
        retention = self.settings.trash_retention_seconds

        def deleted(pool: Pool) -> delete.DeleteReport | None:
            try:
                return delete.delete_disks(
                    pool, instance_uuid, only, retention_seconds=retention
                )
            except errors.DiskBusy as error:
                # The disks in other pools are deleted nevertheless.
                busy.append(error)
                return None

        reports = self._in_each(deleted)
        if busy:
            raise busy[0]
        return {name: found for name, found in reports.items() if found}

    def purge(self) -> list[purge.PurgeReport]:
        """Free the space of deleted images that are due, in each pool."""
        reports = [*self._in_each(purge.purge).values()]
        # A deleted snapshot waits for the disks booted from it, and a deleted
        # disk for the snapshots made of it.
        if set(self.pool_names()) != {self.settings.snapshot_pool}:
            reports.append(purge.purge(self.snapshots))
            reports += self._in_each(purge.purge).values()
        return reports

    def _in_each(self, work: Callable[[Pool], T]) -> dict[str, T]:
        """Do the work in each known pool; return the results by pool name.

        The pool of a former class may have been deleted. It is skipped, now
        and later.
        """
        results = {}
        for name in self.pool_names():
            try:
                results[name] = work(self.pool(name))
            except errors.PoolNotFound:
                if self.settings.class_of_pool(name) is not None:
                    raise
                self._registered = tuple(
                    each for each in self._registered if each != name
                )
        return results
