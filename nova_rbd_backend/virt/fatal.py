# SPDX-License-Identifier: Apache-2.0

"""End a nova-compute that must not start."""

import logging as python_logging
import os
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

from oslo_log import log as logging

from nova_rbd_backend import errors

LOG = logging.getLogger(__name__)
T = TypeVar("T")


def require(check: Callable[[], T]) -> T:
    """Return what check() returns; end nova-compute if it raises our error.

    The log gets one line with the reason. An exception would end nova-compute
    too, but its text would be buried in Nova's traceback. SystemExit passes
    through os_vif, stevedore and both forms of oslo.service.
    """
    try:
        return check()
    except errors.Error as error:
        reason = str(error)
    # Not in the except block: oslo.log would repeat the exception's text.
    LOG.critical("nova-compute cannot start: %s", reason)
    # When init_host runs under native threads (Nova 34), the thread that
    # passes on libvirt's events has started. futurist (3.5,
    # _thread.py:_clean_up) joins it at exit, so that after sys.exit()
    # nova-compute would wait for ever and do nothing.
    if threading.active_count() > 1:
        python_logging.shutdown()
        os._exit(1)
    sys.exit(1)
