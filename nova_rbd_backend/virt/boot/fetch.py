# SPDX-License-Identifier: Apache-2.0

"""Copy the data of a few images at a time on this host, and log progress."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator

from oslo_log import log as logging

from nova_rbd_backend.virt import edge

LOG = logging.getLogger(__name__)
#: The time between log lines about an import that takes long.
LOG_SECONDS = 10

# The slots, by their number; eventlet makes them green.
_slots: dict[int, threading.BoundedSemaphore] = {}


@contextlib.contextmanager
def slot(limit_seconds: float | None = None) -> Iterator[bool]:
    """Hold one of the host's few slots for imports, downloads included.

    :param limit_seconds: how long to wait for a slot; None: without limit
    :returns: False: no slot became free in that time
    """
    count = edge.settings().import_at_once
    # The first boots may come at once; functools.cache might give each one
    # its own.
    slots = _slots.setdefault(count, threading.BoundedSemaphore(count))
    got = slots.acquire(timeout=limit_seconds)
    try:
        yield got
    finally:
        if got:
            slots.release()


@contextlib.contextmanager
def progress_logged(what: str, path: str) -> Iterator[Callable[[int], None]]:
    """Log every LOG_SECONDS how far an import has come.

    Lends a function that is called with the bytes imported so far. It may be
    called in a native thread, which must not log.
    """
    ended = threading.Event()
    begun = time.monotonic()
    imported_bytes = 0

    def set_imported(done_bytes: int) -> None:
        nonlocal imported_bytes
        imported_bytes = done_bytes

    def log() -> None:
        while not ended.wait(LOG_SECONDS):
            seconds = time.monotonic() - begun
            state = _state(path, imported_bytes)
            LOG.info("%s after %d s: %s", what, seconds, state)

    thread = threading.Thread(target=log, name="nova-rbd-log", daemon=True)
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
