# SPDX-License-Identifier: Apache-2.0

"""Copying images' bytes on this host: a few at a time, and with progress."""

import contextlib
import functools
import glob
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator

import nova.conf
from oslo_log import log as logging
from oslo_utils import fileutils

from nova_rbd_backend.virt import edge

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)
#: How often a log line says what takes long.
TELL_SECONDS = 10


@contextlib.contextmanager
def slot(limit_seconds: float | None = None) -> Iterator[bool]:
    """Hold one of the host's few slots for imports, downloads included.

    :param limit_seconds: how long to wait for a slot; None: without limit
    :returns: False: none became free in that time
    """
    slots = _slots(edge.settings().import_at_once)
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
    """Log every TELL_SECONDS how far an import has come.

    Lends a function to be called with the bytes imported so far, in a native
    thread, which may not log.
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


STAGING_FOLDER = "nova-rbd-staging"


@contextlib.contextmanager
def staged_file(name: str) -> Iterator[str]:
    """Lend a path for a file on its way into the pool; remove it afterwards.

    No file exists there yet. Nova appends ``.part`` and ``.converted`` to the
    path meanwhile.
    """
    fileutils.ensure_tree(_staging_folder())
    path = os.path.join(_staging_folder(), f"{name}.{uuid.uuid4().hex[:12]}")
    try:
        yield path
    finally:
        for found in glob.glob(f"{glob.escape(path)}*"):
            fileutils.delete_if_exists(found)


def clear_staged() -> None:
    """Remove what a nova-compute of this host left when it was killed."""
    if not os.path.isdir(_staging_folder()):
        return
    if left := os.listdir(_staging_folder()):
        LOG.info("Removing %s from %s", ", ".join(left), _staging_folder())
    shutil.rmtree(_staging_folder())


def _staging_folder() -> str:
    # Several hosts may share the instances' folder.
    return os.path.join(CONF.instances_path, STAGING_FOLDER, CONF.host)
