# SPDX-License-Identifier: Apache-2.0

"""Copy the data of a few images at a time on this host, and log progress."""

import contextlib
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
#: The time between log lines about an import that takes long.
LOG_SECONDS = 10
STAGING_FOLDER = "nova-rbd-staging"

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


@contextlib.contextmanager
def staged_file(name: str) -> Iterator[str]:
    """Lend a path for a file on its way into the pool; remove it afterwards.

    The file does not exist yet. Meanwhile Nova makes other files, with
    ``.part`` and ``.converted`` appended to the path.
    """
    folder = _staging_folder()
    fileutils.ensure_tree(folder)
    path = os.path.join(folder, f"{name}.{uuid.uuid4().hex[:12]}")
    try:
        yield path
    finally:
        for found in glob.glob(f"{glob.escape(path)}*"):
            fileutils.delete_if_exists(found)


def clear_staged() -> None:
    """Remove the files that a killed nova-compute of this host has left."""
    folder = _staging_folder()
    if not os.path.isdir(folder):
        return
    if left := os.listdir(folder):
        LOG.info("Removing %s from %s", ", ".join(left), folder)
    shutil.rmtree(folder)


def _staging_folder() -> str:
    # Several hosts may share the instances' folder.
    return os.path.join(CONF.instances_path, STAGING_FOLDER, CONF.host)
