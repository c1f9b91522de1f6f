# SPDX-License-Identifier: Apache-2.0

"""What copies an image's bytes: few at a time on a host, and told of."""

import contextlib
import functools
import os
import threading
import time
from collections.abc import Callable, Iterator

import nova.conf
from oslo_log import log as logging

from nova_rbd_backend import conf

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)
#: How often a log line says what takes long.
TELL_SECONDS = 10


@contextlib.contextmanager
def slot(limit_seconds: float | None = None) -> Iterator[bool]:
    """Hold one of the host's few imports, from its download to its end.

    :param limit_seconds: how long to wait for one; None: as long as it takes
    :returns: False: none was free so long
    """
    slots = _slots(conf.settings(CONF).import_at_once)
    got = slots.acquire(timeout=limit_seconds)
    try:
        yield got
    finally:
        if got:
            slots.release()


@functools.cache
def _slots(count: int) -> threading.BoundedSemaphore:
    # Green under eventlet.
    return threading.BoundedSemaphore(count)


@contextlib.contextmanager
def told(what: str, path: str) -> Iterator[Callable[[int], None]]:
    """Log how far one is that takes long.

    What it lends is called in a native thread, which may not log.
    """
    ended = threading.Event()
    imported = [0]
    begun = time.monotonic()

    def set_imported(done_bytes: int) -> None:
        imported[0] = done_bytes

    def tell() -> None:
        while not ended.wait(TELL_SECONDS):
            LOG.info(
                "%(what)s after %(seconds)d s: %(state)s",
                {
                    "what": what,
                    "seconds": time.monotonic() - begun,
                    "state": _state(path, imported[0]),
                },
            )

    thread = threading.Thread(target=tell, name="nova-rbd-tell", daemon=True)
    thread.start()
    try:
        yield set_imported
    finally:
        ended.set()
        thread.join()


def _state(path: str, imported_bytes: int) -> str:
    if imported_bytes:
        return f"imported {imported_bytes >> 20} MiB"
    for ending, doing in ((".converted", "converted"), (".part", "fetched")):
        with contextlib.suppress(FileNotFoundError):
            blocks = os.stat(path + ending).st_blocks
            return f"{doing} {blocks * 512 >> 20} MiB"
    return "begun"
