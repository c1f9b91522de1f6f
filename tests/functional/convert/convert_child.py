# SPDX-License-Identifier: Apache-2.0

"""A process that runs nova-rbd, and kills itself in a conversion."""

import functools
import sys

from nova_rbd_backend.cmd import main as program
from nova_rbd_backend.convert import live, old_disks, record
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


def before_forks():
    """Load the plugins that cliff would load in each process."""
    app = program.NovaRbd()
    factory, name, _ = app.command_manager.find_command(["convert"])
    factory(app, None).get_parser(name)


def nova_rbd(step, *words):
    """Run nova-rbd, and die after the n-th step of a conversion.

    A step is a call that changes the cluster, the instance's folder or the
    guest.

    :param step: its number; "0" to run to the end
    """
    # A small disk is copied sooner than the program looks.
    live._TICK_SECONDS = 0.05
    say = functools.partial(print, flush=True)
    countdown = dying.Countdown(int(step), say)
    dying.hook(countdown, dying.changes(), GUEST, after=True)
    sys.exit(program.main(list(words)))
