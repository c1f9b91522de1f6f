# SPDX-License-Identifier: Apache-2.0

"""Run nova-rbd, which kills itself after the n-th step of a conversion.

A step is a call that changes the cluster, the instance's folder or the
guest. Run as ``python -m tests.functional.convert.convert_child STEP WORD...``
"""

import functools
import sys

from nova_rbd_backend.cmd import main as program
from nova_rbd_backend.convert import old_disks, record
from nova_rbd_backend.domains import guest
from tests.support import dying

GUEST: dying.Table = {
    guest.Guest: (
        *("define", "pause", "resume", "change_medium"),
        *("mirror", "pivot", "give_up"),
    ),
    record: ("write", "remove"),
    old_disks: ("_rename", "remove"),
}


if __name__ == "__main__":
    say = functools.partial(print, flush=True)
    countdown = dying.Countdown(int(sys.argv[1]), say)
    dying.hook(countdown, dying.changes(), GUEST, after=True)
    sys.exit(program.main(sys.argv[2:]))
