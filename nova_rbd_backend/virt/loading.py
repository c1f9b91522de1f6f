# SPDX-License-Identifier: Apache-2.0

"""Choose the compute driver when Nova loads ``rbd_backend.LibvirtDriver``.

The options are mapped before Nova's libvirt driver is imported, because that
module reads some of them when it defines its functions
(driver.py:_get_guest_fs_config, Nova 26 to 34).
"""

import importlib
from typing import Any

import nova.conf
from oslo_log import log as logging

from nova_rbd_backend import conf
from nova_rbd_backend.checks.host import require_ceph_modules
from nova_rbd_backend.virt import compat, logs
from nova_rbd_backend.virt.fatal import require

LOG = logging.getLogger(__name__)


def driver_class() -> Any:
    """Return our compute driver for images_type rbd, otherwise Nova's own."""
    logs.stand_alone()
    settings = require(lambda: conf.apply(nova.conf.CONF))
    # Nova logs options as they were before they are mapped.
    LOG.info("Instance disks: %s", settings.summary())
    name = "nova.virt.libvirt.driver"
    if settings.uses_rbd:
        require(require_ceph_modules)
        # Our driver could not even be imported if Nova lacked what it extends.
        require(lambda: compat.check_nova(settings.allow_untested_nova))
        name = "nova_rbd_backend.virt.driver"
    return importlib.import_module(name).LibvirtDriver
