# SPDX-License-Identifier: Apache-2.0

"""One pool as Nova's side asks for it, and all pools that may have disks.

A disk is in the pool where it was made: what is done for all of an instance
is done in each pool that is known.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterable
from typing import TypeVar

import nova.conf

from nova_rbd_backend import conf, errors, names
from nova_rbd_backend.storage import (
    cluster,
    fencing,
    health,
    offload,
    pool,
    provision,
    purge,
    trash,
)
from nova_rbd_backend.storage_classes import StorageClass
from nova_rbd_backend.virt import faults, known_pools, untold

CONF = nova.conf.CONF
T = TypeVar("T")


class EveryPool:
    """One pool of one cluster, and all others that may have disks.

    :ivar storage_class: what new images get: the first class with that pool
        unless it is set; None: nova.conf has none
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
            dataclasses.replace(
                health.cluster_settings(self._settings),
                conf_file=self.ceph_conf or None,
                user=self.rbd_user,
                connect_timeout_seconds=self.rbd_connect_timeout,
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
    def _run(
        work: Callable[[], T], long: bool = False, waits: bool = False
    ) -> T:
        """Do one piece of work off the event loop, with Nova's exceptions."""
        with faults.as_nova():
            try:
                return offload.run(work, long=long, waits=waits)
            finally:
                untold.tell()

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
        found = self._disks(instance_uuid)
        return [name for name, disks in found.items() if disks]

    def disks(self, instance_uuid: str) -> list[str]:
        """Names of the instance's disks, in whatever pool."""
        return list(
            itertools.chain.from_iterable(self._disks(instance_uuid).values())
        )

    def _disks(self, instance_uuid: str) -> dict[str, list[str]]:
        prefix = names.DiskName.prefix(instance_uuid)
        return self._run(
            lambda: self._in_each(lambda each: each.names(prefix))
        )

    def fence_for_start(self, instance_uuid: str) -> None:
        """Make the instance's disks free for its guest; dead clients: fenced.

        :raises nova.exception.StorageError: a client that is alive has one
        """
        self._run(
            lambda: self._in_each(
                lambda each: fencing.fence_for_start(each, instance_uuid)
            )
        )

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

        # For a client that holds an image's lock; never for a copy.
        return self._run(work, waits=True)

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
