# SPDX-License-Identifier: Apache-2.0

"""The end of a program that was connected to Ceph."""

import contextlib
import logging
import os
import sys
from typing import NoReturn


def leave(status: int) -> NoReturn:
    """End the process, and leave librados' threads to the kernel.

    Python's own way ends in C++ destructors, which meet threads that run on:
    with 16.2.15 one of some thirty programs was aborted there ("terminate
    called without an active exception"), its work done.
    """
    logging.shutdown()
    # Whoever read it has gone: nothing is left to say.
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)
