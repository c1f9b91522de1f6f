# SPDX-License-Identifier: Apache-2.0

"""An image that is closed as soon as it has been opened.

The thread of librbd that has opened it still uses what the close frees
(ImageState::complete_action_unlock, 16.2 to 20.2). On a busy machine the
process ends once in some thousand times; with MALLOC_PERTURB_, which
overwrites what is freed, soon.
"""

import contextlib
import os
import subprocess
import sys

TIMES = 200
PROGRAM = f"""
import sys
from nova_rbd_backend.ceph import cluster
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.settings import ClusterSettings

conf, name = sys.argv[1:]
pool = Pool(cluster.connect(ClusterSettings(conf, "nova", 10, 60)), "vms")
for _ in range({TIMES}):
    with pool.open(name):
        pass
print("done")
"""


@contextlib.contextmanager
def busy_machine():
    busy = (sys.executable, "-c", "while True: pass")
    with contextlib.ExitStack() as stack:
        for _ in range(2 * os.cpu_count()):
            process = stack.enter_context(subprocess.Popen(busy))
            stack.callback(process.kill)
        yield


def test_clone_on_a_busy_machine(ceph, pool, parent, name):
    pool.clone(pool.beside(parent.pool), parent.image, parent.snap, name)
    with busy_machine():
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(ceph.conf), name],
            env={**os.environ, "MALLOC_PERTURB_": "165"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
