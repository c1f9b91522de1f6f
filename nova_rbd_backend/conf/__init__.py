# SPDX-License-Identifier: Apache-2.0

"""Every option, and how the options reach Nova's own.

Other packages import this package, and not the modules in it.
"""

from nova_rbd_backend.conf.mapping import (
    COMPUTE_DRIVER,
    apply,
    check_driver,
    generic_flags_given,
    settings,
    storage_class_names,
)
from nova_rbd_backend.conf.options import (
    IMAGES_TYPES,
    list_opts,
    register,
    register_nova_options,
)

__all__ = [
    "COMPUTE_DRIVER",
    "IMAGES_TYPES",
    "apply",
    "check_driver",
    "generic_flags_given",
    "list_opts",
    "register",
    "register_nova_options",
    "settings",
    "storage_class_names",
]
