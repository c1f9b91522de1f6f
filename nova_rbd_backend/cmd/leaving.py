# SPDX-License-Identifier: Apache-2.0

"""The end of a program that was connected to Ceph."""

import contextlib
import logging
import os
import sys
from typing import NoReturn


def leave(status: int) -> NoReturn:
    """End the process, and leave librados' threads to the kernel.

    Python's own exit runs C++ destructors while librados' threads are still
    running. With 16.2.15 one of some thirty programs was aborted there, with
    its work done ("terminate called without an active exception").
    """
    logging.shutdown()
    # The reader of the output may be gone.
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)
