# SPDX-License-Identifier: Apache-2.0

"""The one way from Nova to a flow, and back with Nova's exceptions.

:func:`run` does one piece of work off the event loop, logs the notices of that
work, and raises exceptions that the compute manager can handle. The user gets
a fault that names the pool and the image.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import nova.conf
from nova import exception
from oslo_log import log as logging

from nova_rbd_backend import conf, errors, notices, threads
from nova_rbd_backend.settings import Settings
from nova_rbd_backend.storage.store import Store

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)
T = TypeVar("T")


def settings() -> Settings:
    """Return the settings that nova.conf amounts to."""
    return conf.settings(CONF)


def store() -> Store:
    """Return this host's store, the same object for the same settings."""
    return _store(settings())


_store = functools.cache(Store)


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
            # Not in noted(): under eventlet a native thread may not log.
            for fact in facts:
                _log(fact)


def _log(fact: notices.Notice) -> None:
    if isinstance(fact, notices.Coarser):
        _log_coarser(fact)
        return
    if isinstance(fact, notices.Lockless):
        _log_lockless(fact)
        return
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


def _log_lockless(fact: notices.Lockless) -> None:
    if fact.refusal is None:
        LOG.warning(
            "%(pool)s/%(image)s had no exclusive-lock, and has it from now "
            "on. A guest that was started on it before, on a host that is cut "
            "off, could not be fenced, and would write to it when the host is "
            "back: make sure that there is none",
            vars(fact),
        )
    else:
        LOG.warning(
            "%(pool)s/%(image)s has no exclusive-lock, so its guest, which "
            "starts now, cannot be fenced if its host is cut off for 30 s, "
            "and then writes beside the guest that takes its place: "
            "%(refusal)s; add it with `rbd feature enable %(pool)s/%(image)s "
            "exclusive-lock`",
            vars(fact),
        )


@functools.cache  # logs each fact once
def _log_coarser(fact: notices.Coarser) -> None:
    LOG.info(
        "Clones in %(pool)s of images in %(parent_pool)s with %(parent)s "
        "get %(given)s: [%(group)s] asks for %(wanted)s, but a clone is "
        "never striped finer than its parent",
        vars(fact),
    )


#: Looked up along the error's bases, so that one row serves a whole branch.
NOVA_FAULTS: dict[type, Callable[[Any], exception.NovaException]] = {
    errors.ConfigError: lambda e: exception.InvalidConfiguration(str(e)),
    errors.InvalidLocation: lambda e: exception.ImageUnacceptable(
        image_id=e.target or "?", reason=str(e)
    ),
    errors.ImageNotFound: lambda e: exception.DiskNotFound(location=str(e)),
    errors.SnapNotFound: lambda e: exception.SnapshotNotFound(
        snapshot_id=str(e)
    ),
    errors.Error: lambda e: exception.StorageError(reason=str(e)),
}


@contextlib.contextmanager
def as_nova() -> Iterator[None]:
    """Raise Nova's exception in place of ours; let all others pass."""
    try:
        yield
    except errors.Error as error:
        bases = type(error).__mro__
        fault = next(NOVA_FAULTS[b] for b in bases if b in NOVA_FAULTS)
        raise fault(error) from error
