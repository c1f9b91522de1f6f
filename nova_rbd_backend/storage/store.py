# SPDX-License-Identifier: Apache-2.0

"""Every pool of a host behind one object.

A disk stays in the pool where it was made: the pool of libvirt_images_store,
of a storage class, or of a class that any host has ever used (see
:mod:`.registry`). Work on all disks of an instance is done in each of these
pools. The registry is read at the start, and again if a disk that ought to
exist is not found. The boot of a new instance costs no request for it.

A pool may stand still, for example with inactive PGs. Work that does not need
this pool is done, and what has to be done in all pools is done in the others,
before its error is raised.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Collection, Iterable
from typing import TypeVar

from nova_rbd_backend import errors, names
from nova_rbd_backend.ceph import cluster
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.settings import Settings
from nova_rbd_backend.storage import due, fencing, journal, registry
from nova_rbd_backend.storage.disks import delete, provision
from nova_rbd_backend.storage.disks.delete import ByMove, DeleteReport
from nova_rbd_backend.storage.images import purge
from nova_rbd_backend.storage_classes import StorageClass

T = TypeVar("T")
# How long no new disk is looked for in a pool that gave no answer: each look
# takes the whole operation timeout.
_SILENT_SECONDS = 60.0


class Store:
    """The pools that may hold disks of this host's instances. Calls block."""

    def __init__(self, settings: Settings):
        self.settings = settings
        # From the registry, so that pools of other hosts are among them.
        self._registered: tuple[str, ...] = ()
        # By pool: when it gave no answer to a look for a new disk.
        self._silent_at: dict[str, float] = {}

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
            # No disk can be made now either, and this is done before one is.
            with contextlib.suppress(errors.NoSpace):
                self.add_pool(each)
        configured = {each.pool for each in self.settings.classes}
        for name in registry.missing(self.pool(), configured):
            registry.remove(self.pool(), name)
        self.read_pools()

    # an instance's disks

    def pool_of(
        self, image: str, first: str | None = None, is_new: bool = False
    ) -> str | None:
        """Return the name of the pool that has this disk, whole, or None.

        :param first: the pool where it most likely is
        :param is_new: the disk is about to be made, and very likely does not
            exist; a pool that gives no answer does not keep it from being made
        :raises StorageError: a pool gives no answer, and the disk is in no
            other pool
        """
        known = sorted(self.pool_names(), key=lambda name: name != first)
        if not is_new:
            return self._whole_in(image, known)
        now = time.monotonic()
        silent = {
            name
            for name, at in self._silent_at.items()
            if name != first and now - at < _SILENT_SECONDS
        }
        asked = [name for name in known if name not in silent]
        try:
            return self._whole_in(image, asked)
        except errors.UNREACHED as error:
            if error.pool in (None, first):
                raise
            self._silent_at[error.pool] = time.monotonic()
            return None

    def pool_of_unknown(self, image: str) -> str | None:
        """Do the same in the pools that only other hosts knew until now."""
        return self._whole_in(image, self.read_pools())

    def _whole_in(self, image: str, pools: Iterable[str]) -> str | None:
        failed: list[errors.StorageError] = []
        for name in pools:
            try:
                if provision.is_whole(self.pool(name), image):
                    return name
            except errors.PoolNotFound:
                continue
            except errors.UNREACHED as error:
                failed.append(error)
        if failed:
            raise failed[0]
        return None

    def disks(self, instance_uuid: str) -> list[str]:
        """Return the names of an instance's disks in all pools."""
        found = self.disks_by_pool(instance_uuid).values()
        return list(itertools.chain.from_iterable(found))

    def disks_within_reach(self, instance_uuid: str) -> list[str]:
        """Return the names of its disks in the pools that answer."""
        found, _ = self._try_each(_names_of(instance_uuid))
        return list(itertools.chain.from_iterable(found.values()))

    def disks_by_pool(self, instance_uuid: str) -> dict[str, list[str]]:
        """Return the names of an instance's disks for each pool's name."""
        return self._in_each(_names_of(instance_uuid))

    def ready_for_start(
        self, instance_uuid: str, disks: Iterable[names.ImagePath]
    ) -> bool:
        """Return whether a guest can start at once, as nobody has its disks.

        If not, fence_for_start has to wait for clients, or to fence them.
        """
        return all(
            fencing.ready_for_start(self.pool(name), instance_uuid, images)
            for name, images in _by_pool(disks).items()
        )

    def fence_for_start(
        self, instance_uuid: str, disks: Iterable[names.ImagePath]
    ) -> None:
        """Fence the dead clients of these disks before their guest starts.

        Asks only the pools of these disks.

        :param disks: of the instance, as its domain names them
        :raises DiskInUse: a living client has a disk open
        """
        for name, images in _by_pool(disks).items():
            fencing.fence_for_start(self.pool(name), instance_uuid, images)

    def fence_within_reach(self, instance_uuid: str) -> None:
        """Fence the dead clients of its disks in the pools that answer.

        :raises DiskInUse: a living client has a disk open
        """
        _, failed = self._try_each(
            lambda pool: fencing.fence_for_start(pool, instance_uuid)
        )
        for error in failed.values():
            if not isinstance(error, errors.UNREACHED):
                raise error

    def delete(
        self,
        instance_uuid: str,
        only: Callable[[str], bool] = lambda _disk: True,
        by_move: ByMove | None = None,
    ) -> dict[str, DeleteReport]:
        """Free the names of an instance's disks in all pools.

        A purge frees their space.

        :param only: called with each disk's name; returns whether to delete it
        :param by_move: of these, delete only the disks chosen by it
        :returns: a report for each pool's name
        :raises StorageError: of the first pool with a disk that is in use, or
            that gives no answer; what can be deleted in the other pools is
            deleted
        """
        return self._in_each(self._deletion(instance_uuid, only, by_move))

    def delete_within_reach(
        self, instance_uuid: str, silent: Collection[str]
    ) -> tuple[dict[str, DeleteReport], dict[str, errors.StorageError]]:
        """Free the names of an instance's disks in the pools that answer.

        :param silent: pools that are known to be silent, and are not asked
        :returns: a report, or an error, for each other pool's name
        """
        asked = [name for name in self.pool_names() if name not in silent]
        return self._try_each(self._deletion(instance_uuid), asked)

    def _deletion(
        self,
        instance_uuid: str,
        only: Callable[[str], bool] = lambda _disk: True,
        by_move: ByMove | None = None,
    ) -> Callable[[Pool], DeleteReport]:
        """Return a function that frees the names in one pool."""
        retention = self.settings.trash_retention_seconds
        return lambda pool: delete.delete_disks(
            pool,
            instance_uuid,
            only,
            retention_seconds=retention,
            by_move=by_move,
        )

    def purge(
        self, period_seconds: int = 0
    ) -> tuple[list[purge.PurgeReport], list[errors.StorageError]]:
        """Free the space of deleted images that are due, in each pool.

        :param period_seconds: see purge.purge_by_turns
        :returns: the reports, and an error for each pool that failed
        """
        snapshots = self.settings.snapshot_pool
        pools = dict.fromkeys((*self.pool_names(), snapshots))
        found, failed = self._try_each(
            lambda pool: purge.purge_by_turns(pool, period_seconds), pools
        )
        reports = list(found.values())
        # A deleted snapshot waits for the disks booted from it, and a deleted
        # disk for the snapshots made of it.
        while any(report.purged for report in found.values()):
            again = [
                name
                for name in pools
                if name not in failed
                and due.keys(self.pool(name), journal.DELETE)
            ]
            found, more_failed = self._try_each(purge.purge_own, again)
            reports += found.values()
            failed |= more_failed
        return reports, list(failed.values())

    def spawns(
        self,
    ) -> tuple[dict[str, list[journal.Entry]], list[errors.StorageError]]:
        """Return the spawns that have not ended, by pool name.

        :returns: and an error for each pool that failed
        """
        found, failed = self._try_each(journal.spawns)
        return found, list(failed.values())

    def _in_each(self, work: Callable[[Pool], T]) -> dict[str, T]:
        """Do the work in each known pool; return the results by pool name.

        :raises StorageError: of the first pool that failed; the work is done
            in all others
        """
        results, failed = self._try_each(work)
        for error in failed.values():
            raise error
        return results

    def _try_each(
        self, work: Callable[[Pool], T], pools: Iterable[str] | None = None
    ) -> tuple[dict[str, T], dict[str, errors.StorageError]]:
        """Do the work in each pool; return results and errors by pool name.

        The pool of a former class may have been deleted. It is skipped, now
        and later.

        :param pools: names; None: all known pools
        :raises ClusterUnreachable: which is so for all pools
        """
        results: dict[str, T] = {}
        failed: dict[str, errors.StorageError] = {}
        for name in self.pool_names() if pools is None else tuple(pools):
            try:
                results[name] = work(self.pool(name))
            except errors.ClusterUnreachable:
                raise
            except errors.StorageError as error:
                gone = isinstance(error, errors.PoolNotFound)
                if gone and self._is_former(name):
                    self._registered = tuple(
                        each for each in self._registered if each != name
                    )
                else:
                    failed[name] = error
        return results, failed

    def _is_former(self, pool: str) -> bool:
        """Return whether only disks of former classes can be in a pool."""
        return (
            pool != self.settings.snapshot_pool
            and self.settings.class_of_pool(pool) is None
        )


def _names_of(instance_uuid: str) -> Callable[[Pool], list[str]]:
    """Return a function that lists an instance's disks in a pool."""
    prefix = names.DiskName.prefix(instance_uuid)
    return lambda pool: pool.directory.names(prefix)


def _by_pool(disks: Iterable[names.ImagePath]) -> dict[str, set[str]]:
    """Return the disks' names for each pool's name."""
    found: dict[str, set[str]] = {}
    for disk in disks:
        found.setdefault(disk.pool, set()).add(disk.image)
    return found
