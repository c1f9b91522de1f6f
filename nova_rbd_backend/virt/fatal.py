# SPDX-License-Identifier: Apache-2.0

"""The end of a nova-compute that may not start."""

import logging as python_logging
import os
import sys
import threading
from collections.abc import Callable
from typing import NoReturn, TypeVar

from oslo_log import log as logging

from nova_rbd_backend import errors

LOG = logging.getLogger(__name__)
T = TypeVar("T")


def require(check: Callable[[], T]) -> T:
    """Return what check() returns; end nova-compute where it raises ours.

    With one line that says why: an exception would end it too, but buried in
    Nova's traceback. SystemExit passes through stevedore and through both
    forms of oslo.service.
    """
    try:
        return check()
    except errors.Error as error:
        reason = str(error)
    # Not in the except block: oslo.log would repeat the exception's text.
    LOG.critical("nova-compute cannot start: %s", reason)
    _end_process()


def _end_process() -> NoReturn:
    """Exit with 1, also where Python's exit would wait for ever.

    When init_host runs under native threads (Nova 34), the thread that hands
    on libvirt's events is there, and futurist (3.5, _thread.py:_clean_up)
    joins it at exit: after sys.exit nova-compute would stay, doing nothing.
    """
    if threading.active_count() > 1:
        python_logging.shutdown()
        os._exit(1)
    sys.exit(1)
