"""What runs first when Nova loads ``rbd_backend.LibvirtDriver``.

The options are mapped before Nova's libvirt driver is imported, since that
reads some of them when its functions are defined
(driver.py:_get_guest_fs_config, Nova 26 to 34).
"""

import importlib
import sys
from typing import Any, NoReturn

import nova.conf
from oslo_log import log as logging

from nova_rbd_backend import conf, errors

LOG = logging.getLogger(__name__)

CEPH_MODULES = {"rados": "python3-rados", "rbd": "python3-rbd"}


def refuse(error: errors.Error) -> NoReturn:
    """End nova-compute with one line that says why.

    An exception would do too, but buried in Nova's traceback.  SystemExit
    passes through stevedore and through both forms of oslo.service.
    """
    LOG.critical("nova-compute cannot start: %s", error)
    sys.exit(1)


def driver_class() -> Any:
    """The compute driver for what nova.conf asks for.

    Ours for rbd; for all other image types Nova's own, untouched.
    """
    try:
        settings = conf.apply(nova.conf.CONF)
        if settings.uses_rbd:
            _require_ceph_modules()
    except errors.Error as error:
        refuse(error)
    settings.log_effective(LOG)
    module = (
        "nova_rbd_backend.virt.driver"
        if settings.uses_rbd
        else "nova.virt.libvirt.driver"
    )
    return importlib.import_module(module).LibvirtDriver


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
