# SPDX-License-Identifier: Apache-2.0

"""Close RADOS connections that nobody uses any more.

python-rados 16.2 frees a connection only on shutdown(), which may wait and
may not be called from where the garbage collector happens to run (a greenlet,
a thread that holds a lock). So it is handed to a native thread of its own.
"""

import contextlib
from collections.abc import Mapping
from typing import Any

import rados

from nova_rbd_backend.storage import offload


class _Closer:
    def __init__(self) -> None:
        # In C, and so safe to put into from a garbage collection.
        self.queue = offload.original_queue().SimpleQueue()
        threading = offload.original_threading()
        threading.Thread(
            target=self._work, name="nova-rbd-closer", daemon=True
        ).start()

    def _work(self) -> None:
        while True:
            handle, ioctxs = self.queue.get()
            with contextlib.suppress(Exception):
                for ioctx in ioctxs.values():
                    ioctx.close()
                handle.shutdown()


_closer: list[_Closer] = []


def start() -> None:
    """Have the thread there before the first connection is dropped."""
    if not _closer:
        _closer.append(_Closer())


def close(handle: rados.Rados, ioctxs: Mapping[Any, rados.Ioctx]) -> None:
    """Close it soon; returns at once."""
    for closer in _closer:
        closer.queue.put((handle, ioctxs))


def forget() -> None:
    """After a fork: the thread is the parent's."""
    _closer.clear()
