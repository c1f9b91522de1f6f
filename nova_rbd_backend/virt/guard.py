# SPDX-License-Identifier: Apache-2.0

"""A tripwire and an import alias, which os_vif loads into nova-compute.

``os_vif`` is the only entry-point namespace that nova-compute loads without
being told to. It does so after it has read its configuration and before it
loads the compute driver (Nova 26 to 34, cmd/compute.py). Without the tripwire,
a host with ``libvirt_images_type = rbd`` but without ``compute_driver`` would
start, ignore the unknown option, and put disks on its local file system.

Every program that uses os_vif loads this module. It therefore imports only the
standard library at load time, and does nothing outside nova-compute.
"""

import importlib
import importlib.util
import sys
import typing

ALIAS = "nova.virt.rbd_backend"


class Guard:
    """An os_vif plugin that plugs nothing."""

    @classmethod
    def load(cls, plugin_name: str) -> typing.Self:
        """Provide the alias, and stop a nova-compute that must not start.

        os_vif.initialize() calls this.

        :raises SystemExit: nova-compute must not start
        """
        if in_nova_compute():
            provide_alias()
            trip()
        return cls()

    def describe(self) -> typing.Any:
        """Tell os_vif.host_info() that this plugin has no VIF types."""
        host_info = importlib.import_module("os_vif.objects.host_info")
        return host_info.HostPluginInfo(
            plugin_name="nova_rbd_backend_guard", vif_info=[]
        )

    def plug(self, vif: object, instance_info: object) -> None:
        raise NotImplementedError("nova_rbd_backend plugs no interfaces")

    unplug = plug


def in_nova_compute() -> bool:
    """Return whether this is a nova-compute that has parsed its options.

    nova.cmd.compute is the main module of nova-compute (``__main__`` under
    ``python -m``). No other program of Nova 26 to 34 imports it.
    """
    main = getattr(sys.modules.get("__main__"), "__spec__", None)
    return "nova.conf" in sys.modules and (
        "nova.cmd.compute" in sys.modules
        or getattr(main, "name", None) == "nova.cmd.compute"
    )


def trip() -> None:
    """Stop a nova-compute whose options would be ignored, or cannot work.

    The driver would also refuse options that cannot work, but only after
    nova-conductor has answered, which it may not do on a new host.

    :raises SystemExit: after one CRITICAL line
    """
    conf = importlib.import_module("nova_rbd_backend.conf")
    fatal = importlib.import_module("nova_rbd_backend.virt.fatal")
    nova_conf = sys.modules["nova.conf"].CONF
    fatal.require(lambda: conf.check_driver(nova_conf))
    if nova_conf.compute_driver == conf.COMPUTE_DRIVER:
        fatal.require(lambda: conf.apply(nova_conf))


def provide_alias() -> None:
    """Make nova.virt.rbd_backend importable where nova/virt does not have it.

    nova.virt is not a namespace package. If Nova is in /usr/lib and this
    backend in /usr/local, or in a venv that sees the system's packages, Nova
    does not look into the folder that our wheel adds to nova/virt.
    """
    if importlib.util.find_spec(ALIAS) is not None:
        return
    edge = importlib.import_module("nova_rbd_backend.virt")
    sys.modules[ALIAS] = edge
    nova_virt = importlib.import_module("nova.virt")
    nova_virt.rbd_backend = edge  # type: ignore[attr-defined]
