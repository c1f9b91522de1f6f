# SPDX-License-Identifier: Apache-2.0

"""The Nova edge, which Nova loads as ``nova.virt.rbd_backend``.

Nova is not imported before it asks for the driver, because every user of
os_vif on the host imports this package for its guard.
"""

import importlib
import typing


def __getattr__(name: str) -> typing.Any:
    if name == "LibvirtDriver":
        # By its full name: this folder is also installed as
        # nova.virt.rbd_backend, where a relative import would make a second
        # copy of every class.
        loading = importlib.import_module("nova_rbd_backend.virt.loading")
        return loading.driver_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
