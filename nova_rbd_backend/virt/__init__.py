# SPDX-License-Identifier: Apache-2.0

"""The Nova edge; what Nova loads as ``nova.virt.rbd_backend``.

Nova is imported when Nova asks for the driver and not before: the guard lives
here too, and is imported by every user of os_vif on the host.
"""

import importlib
import typing


def __getattr__(name: str) -> typing.Any:
    if name == "LibvirtDriver":
        # By full name: this folder is also installed as nova.virt.rbd_backend
        # and a relative import would make a second copy of every class.
        loading = importlib.import_module("nova_rbd_backend.virt.loading")
        return loading.driver_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
