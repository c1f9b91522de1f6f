# SPDX-License-Identifier: Apache-2.0

"""The pools in which an instance's disks may be, as this process knows them.

That of libvirt_images_store, those of the storage classes, and those that any
host has ever used (storage.pool_registry). These are read at the start, and
again where a disk that ought to be there is not found: never for a new
instance, whose boot costs no request for it.
"""

from nova_rbd_backend import conf
from nova_rbd_backend.storage import cluster, health, pool_registry
from nova_rbd_backend.storage.pool import Pool
from nova_rbd_backend.storage_classes import StorageClass

_Key = tuple[str | None, str | None, str]
_registered: dict[_Key, tuple[str, ...]] = {}


def _key(settings: conf.Settings) -> _Key:
    return (settings.ceph_conf, settings.user, settings.pool)


def _home(settings: conf.Settings) -> Pool:
    here = cluster.connect(health.cluster_settings(settings))
    return here.pool(settings.pool)


def names(settings: conf.Settings) -> tuple[str, ...]:
    """The pools' names, that of libvirt_images_store first. No request."""
    return tuple(
        dict.fromkeys(
            (
                *(each.pool for each in settings.classes),
                *_registered.get(_key(settings), ()),
            )
        )
    )


def read(settings: conf.Settings) -> tuple[str, ...]:
    """Read what other hosts have added. Blocks.

    :returns: names of the pools that were not known before
    """
    before = names(settings)
    _keep(settings, pool_registry.names(_home(settings)))
    return tuple(name for name in names(settings) if name not in before)


def add(settings: conf.Settings, storage_class: StorageClass) -> None:
    """Let all hosts know of the pool before a disk is made in it. Blocks.

    Known already, or that of libvirt_images_store: done, without a request.
    """
    if is_added(settings, storage_class):
        return
    pool = storage_class.pool
    pool_registry.add(_home(settings), pool, storage_class.name)
    _keep(settings, (*_registered.get(_key(settings), ()), pool))


def is_added(settings: conf.Settings, storage_class: StorageClass) -> bool:
    """Whether all hosts can know of the pool. No request."""
    pool = storage_class.pool
    added = _registered.get(_key(settings), ())
    return pool == settings.pool or pool in added


def forget(settings: conf.Settings, pool: str) -> None:
    """Leave out a pool that there is no more; it comes with none again."""
    known = _registered.get(_key(settings), ())
    _keep(settings, tuple(name for name in known if name != pool))


def start(settings: conf.Settings) -> None:
    """Tell of this host's classes, and learn of the others. Blocks.

    :raises errors.ConfigError: a pool with disks may not be read
    """
    for each in settings.storage_classes:
        add(settings, each)
    home = _home(settings)
    configured = {each.pool for each in settings.classes}
    for name in pool_registry.missing(home, configured):
        pool_registry.forget(home, name)
    read(settings)


def _keep(settings: conf.Settings, found: tuple[str, ...]) -> None:
    # Of two threads at once one may be lost: it is added once more then.
    _registered[_key(settings)] = found
