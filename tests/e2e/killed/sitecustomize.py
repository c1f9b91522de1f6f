# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

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
