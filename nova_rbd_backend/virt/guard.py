# SPDX-License-Identifier: Apache-2.0

"""What os_vif loads at nova-compute's start: a tripwire and an import alias.

``os_vif`` is the only entry-point namespace that nova-compute loads without
being told to, after it read its configuration and before it loads the compute
driver (Nova 26 to 34, cmd/compute.py). Without the tripwire a host on which
somebody set ``libvirt_images_type = rbd`` and forgot ``compute_driver`` would
start, ignore the unknown option, and put disks on its local file system.

Every program that uses os_vif loads this module, so it imports the standard
library alone, and does nothing outside nova-compute.
"""

import importlib
import importlib.util
import logging
import sys
import typing

LOG = logging.getLogger(__name__)

ALIAS = "nova.virt.rbd_backend"


class Guard:
    """Looks like an os_vif plugin that plugs nothing."""

    @classmethod
    def load(cls, plugin_name: str) -> typing.Self:
        """Refuse a start that would ignore our options; set the alias.

        Called by os_vif.initialize().

        :raises SystemExit: nova-compute must not start
        """
        if in_nova_compute():
            provide_alias()
            trip()
        return cls()

    def describe(self) -> typing.Any:
        """Tell os_vif.host_info() that there is no kind of VIF here."""
        host_info = importlib.import_module("os_vif.objects.host_info")
        return host_info.HostPluginInfo(
            plugin_name="nova_rbd_backend_guard", vif_info=[]
        )

    def plug(self, vif: object, instance_info: object) -> None:
        """Refuse: no VIF names this plugin."""
        raise NotImplementedError("nova_rbd_backend plugs no interfaces")

    unplug = plug


def in_nova_compute() -> bool:
    """Tell whether this process is nova-compute, its options parsed.

    nova.cmd.compute is nova-compute's main module (as ``__main__`` under
    ``python -m``), and imported by no other program of Nova 26 to 34.
    """
    main = getattr(sys.modules.get("__main__"), "__spec__", None)
    return "nova.conf" in sys.modules and (
        "nova.cmd.compute" in sys.modules
        or getattr(main, "name", None) == "nova.cmd.compute"
    )


def trip() -> None:
    """Stop a nova-compute whose options nobody reads, or nobody can follow.

    The driver would find the latter too, but only once nova-conductor has
    answered, which on a new host may take as long as the operator looks for
    the mistake.

    :raises SystemExit: after one CRITICAL line
    """
    if (reason := objection()) is None:
        return
    LOG.critical("nova-compute cannot start: %s", reason)
    # SystemExit, because stevedore and os_vif let nothing less through.
    raise SystemExit(1)


def objection() -> str | None:
    """Return what is wrong with the options; None: nothing.

    Not logged here: oslo.log repeats the text of an exception that is being
    handled at the end of the line.
    """
    errors = importlib.import_module("nova_rbd_backend.errors")
    options = importlib.import_module("nova_rbd_backend.conf.mapping")
    nova_conf = sys.modules["nova.conf"].CONF
    try:
        options.check_driver(nova_conf)
        if nova_conf.compute_driver == options.COMPUTE_DRIVER:
            options.apply(nova_conf)
    except errors.Error as error:
        return str(error)
    return None


def provide_alias() -> None:
    """Make nova.virt.rbd_backend importable where Nova's own folder lacks it.

    nova.virt is no namespace package. With Nova in /usr/lib and the backend
    in /usr/local, or in a venv that sees the system's packages, the folder
    that the wheel adds to nova/virt is not where Nova looks.
    """
    if importlib.util.find_spec(ALIAS) is not None:
        return
    edge = importlib.import_module("nova_rbd_backend.virt")
    sys.modules[ALIAS] = edge
    nova_virt = importlib.import_module("nova.virt")
    nova_virt.rbd_backend = edge  # type: ignore[attr-defined]
