# SPDX-License-Identifier: Apache-2.0

"""nova-rbd that kills itself after its n-th step of a conversion.

A step is a call that changes the cluster, the instance's folder or the
guest. ``python -m tests.functional.convert_child STEP WORD...``
"""

import functools
import itertools
import os
import signal
import sys

from nova_rbd_backend.cmd import main as program
from nova_rbd_backend.convert import guest, old_disks, record
from tests.testbed import cluster_changes

GUEST = {
    guest.Guest: (
        *("define", "pause", "resume", "change_medium"),
        *("mirror", "pivot", "give_up"),
    ),
    record: ("write", "remove"),
    old_disks: ("_rename", "remove"),
}


def die_after(number):
    count = itertools.count(1)

    def stepped(method):
        @functools.wraps(method)
        def wrapper(*args, **kwargs):
            result = method(*args, **kwargs)
            at = next(count)
            if at == number:
                print(f"killed after {at}: {method.__name__}", flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapper

    cluster_changes.wrap(stepped, cluster_changes.CHANGES, GUEST)


if __name__ == "__main__":
    die_after(int(sys.argv[1]))
    sys.exit(program.main(sys.argv[2:]))
