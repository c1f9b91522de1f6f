# SPDX-License-Identifier: Apache-2.0

"""The one way from Nova to a flow, and back with Nova's exceptions.

:func:`run` does one piece of work off the event loop, logs what it noted, and
raises exceptions that the compute manager knows how to handle. The user gets a
fault that names the pool and the image.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

import nova.conf
from nova import exception
from oslo_log import log as logging

from nova_rbd_backend import conf, errors, notices, threads
from nova_rbd_backend.settings import Settings
from nova_rbd_backend.storage.store import Store

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")


def settings() -> Settings:
    """Return what nova.conf comes down to."""
    return conf.settings(CONF)


def store() -> Store:
    """Return this host's store, the same one for the same nova.conf."""
    return _store(settings())


@functools.cache
def _store(of: Settings) -> Store:
    return Store(of)


def run(work: Callable[[], T], long: bool = False, waits: bool = False) -> T:
    """Do one piece of work off the event loop, with Nova's exceptions.

    :param long, waits: see threads.run
    :raises nova.exception.NovaException: see NOVA_FAULTS
    """
    facts: list[notices.Notice] = []

    def noted() -> T:
        with notices.collected(facts):
            return work()

    with as_nova():
        try:
            return threads.run(noted, long=long, waits=waits)
        finally:
            # Here, since a native thread may not log under eventlet.
            for fact in facts:
                _log(fact)


def _log(fact: notices.Notice) -> None:
    if isinstance(fact, notices.Fenced):
        _log_fenced(fact)
    else:
        _log_coarser(fact)


def _log_fenced(fact: notices.Fenced) -> None:
    LOG.warning(
        "Fenced a dead client of %(pool)s/%(image)s: client.%(id)d at "
        "%(address)s cannot write for %(days).1f days%(lock)s",
        {
            "pool": fact.pool,
            "image": fact.image,
            "id": fact.client_id,
            "address": fact.address,
            "days": fact.blocklist_seconds / 86400,
            "lock": ", its lock is broken" if fact.lock_broken else "",
        },
    )


@functools.cache  # once for each fact
def _log_coarser(fact: notices.Coarser) -> None:
    LOG.info(
        "Clones in %(pool)s of images in %(parent_pool)s with %(parent)s "
        "get %(given)s: [%(group)s] asks for %(wanted)s, but a clone is "
        "never striped finer than its parent",
        vars(fact),
    )


def _storage(error: errors.Error) -> exception.NovaException:
    return exception.StorageError(reason=str(error))


def _disk_not_found(error: errors.Error) -> exception.NovaException:
    return exception.DiskNotFound(location=str(error))


def _snap_not_found(error: errors.Error) -> exception.NovaException:
    return exception.SnapshotNotFound(snapshot_id=str(error))


def _unacceptable(error: errors.Error) -> exception.NovaException:
    return exception.ImageUnacceptable(
        image_id=getattr(error, "target", "") or "?", reason=str(error)
    )


def _configuration(error: errors.Error) -> exception.NovaException:
    return exception.InvalidConfiguration(str(error))


#: Looked up along the error's bases, so that one row serves a whole branch.
NOVA_FAULTS = {
    errors.ConfigError: _configuration,
    errors.InvalidLocation: _unacceptable,
    errors.ImageNotFound: _disk_not_found,
    errors.SnapNotFound: _snap_not_found,
    errors.Error: _storage,
}


def translate(error: errors.Error) -> exception.NovaException:
    """Return Nova's exception for one of ours."""
    bases = type(error).__mro__
    return next(NOVA_FAULTS[b] for b in bases if b in NOVA_FAULTS)(error)


@contextlib.contextmanager
def as_nova() -> Iterator[None]:
    """Raise Nova's exception in place of ours; let all others pass."""
    try:
        yield
    except errors.Error as error:
        raise translate(error) from error
