# SPDX-License-Identifier: Apache-2.0

"""Makes a nova-compute kill itself before a given change to the cluster.

Python imports it at start where PYTHONPATH has this folder, and the checkout.
The file that NOVA_RBD_KILL names has the number of changes until then; without
the file nothing happens.
"""

import functools
import os
import pathlib
import signal
import threading

from tests.testbed import cluster_changes

_COUNTER = pathlib.Path(os.environ["NOVA_RBD_KILL"])
_lock = threading.Lock()


def _before_a_change():
    with _lock:
        try:
            left = int(_COUNTER.read_text()) - 1
        except (FileNotFoundError, ValueError):
            return
        if left < 1:
            _COUNTER.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        _COUNTER.write_text(str(left))


def _counted(method):
    @functools.wraps(method)
    def wrapper(*args, **kwargs):
        _before_a_change()
        return method(*args, **kwargs)

    return wrapper


cluster_changes.wrap(_counted, cluster_changes.CHANGES)
