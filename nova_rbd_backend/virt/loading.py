# SPDX-License-Identifier: Apache-2.0

"""What runs first when Nova loads ``rbd_backend.LibvirtDriver``.

The options are mapped before Nova's libvirt driver is imported, since that
reads some of them when its functions are defined
(driver.py:_get_guest_fs_config, Nova 26 to 34).
"""

import importlib
from typing import Any

import nova.conf
from oslo_log import log as logging

from nova_rbd_backend import conf
from nova_rbd_backend.checks.host import require_ceph_modules
from nova_rbd_backend.virt.fatal import require

LOG = logging.getLogger(__name__)


def driver_class() -> Any:
    """The compute driver for what nova.conf asks for.

    Ours for rbd; for all other image types Nova's own, untouched.
    """
    settings = require(lambda: conf.apply(nova.conf.CONF))
    settings.log_effective(LOG)
    if not settings.uses_rbd:
        module = importlib.import_module("nova.virt.libvirt.driver")
    else:
        require(require_ceph_modules)
        module = importlib.import_module("nova_rbd_backend.virt.driver")
    return module.LibvirtDriver
