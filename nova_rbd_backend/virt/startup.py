# SPDX-License-Identifier: Apache-2.0

"""What runs first when Nova loads ``rbd_backend.LibvirtDriver``.

The options are mapped before Nova's libvirt driver is imported, since that
reads some of them when its functions are defined
(driver.py:_get_guest_fs_config, Nova 26 to 34).
"""

import importlib
import logging as python_logging
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import nova.conf
from oslo_log import log as logging

from nova_rbd_backend import conf, errors

LOG = logging.getLogger(__name__)
T = TypeVar("T")

CEPH_MODULES = {"rados": "python3-rados", "rbd": "python3-rbd"}


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


def driver_class() -> Any:
    """The compute driver for what nova.conf asks for.

    Ours for rbd; for all other image types Nova's own, untouched.
    """
    settings = require(lambda: conf.apply(nova.conf.CONF))
    settings.log_effective(LOG)
    if not settings.uses_rbd:
        module = importlib.import_module("nova.virt.libvirt.driver")
    else:
        require(_require_ceph_modules)
        module = importlib.import_module("nova_rbd_backend.virt.driver")
    return module.LibvirtDriver


def _require_ceph_modules() -> None:
    for module, package in CEPH_MODULES.items():
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise errors.ConfigError(
                f"the Python module {module} cannot be imported ({error}): "
                f"install Ceph's {package} for the Python that runs "
                f"nova-compute, {sys.executable}"
            ) from error
