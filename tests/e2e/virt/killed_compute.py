# SPDX-License-Identifier: Apache-2.0

"""A nova-compute that kills itself before a given change to the cluster.

pytest imports this module too, perhaps without a Nova, which is therefore
imported in functions.
"""

import os
import pathlib
import sys

from tests.support import dying

# No proof needs the minute after which a nova-compute asks whether Glance took
# a dead process's offer, nor the pauses between its background runs.
ANSWER_SECONDS = 15
RETRY_SECONDS = 2


def before_forks():
    """Import what nova-compute does before it reads its options.

    Some of its other modules read options when they define their functions.
    """
    import nova.cmd.compute  # noqa: F401

    dying.changes()


def nova_compute(counter, *words):
    """Run nova-compute; a file says when it dies, see dying.CountdownFile.

    :param words: its command line
    """
    from nova.cmd import compute
    from nova.servicegroup import api

    from nova_rbd_backend.virt import loading

    # As tests.testbed.process starts it.
    os.setsid()
    changes_left = dying.CountdownFile(pathlib.Path(counter))
    dying.hook(changes_left, dying.changes(), before=True)
    # Nova waits for 5 s before it first reports that it is up.
    api.INITIAL_REPORTING_DELAY = 0
    load = loading.driver_class
    loading.driver_class = lambda: _hurried(load())
    sys.argv = list(words)
    sys.exit(compute.main())


def _hurried(driver):
    """Shorten waits, once Nova has loaded the driver."""
    from nova_rbd_backend.virt.background import worker
    from nova_rbd_backend.virt.snapshot import glance

    glance.ANSWER_SECONDS = ANSWER_SECONDS
    worker.RETRY_SECONDS = RETRY_SECONDS
    return driver
