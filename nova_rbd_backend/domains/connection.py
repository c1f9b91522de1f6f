# SPDX-License-Identifier: Apache-2.0

"""The way to libvirt, for the commands."""

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

from oslo_config import cfg

from nova_rbd_backend import errors


@contextlib.contextmanager
def connected(conf: cfg.ConfigOpts, user: str) -> Iterator[Any]:
    """Lend a connection to the libvirt that nova-compute uses.

    :param user: who may use it
    :raises errors.LibvirtFault: there is none
    """
    uri = conf.libvirt.connection_uri or "qemu:///system"
    try:
        # When it is needed: nova-rbd has commands for hosts without it.
        libvirt = importlib.import_module("libvirt")
    except ImportError as error:
        raise errors.LibvirtFault(
            f"{error}: install python3-libvirt"
        ) from error
    # Its default handler prints every error a second time.
    libvirt.registerErrorHandler(lambda *_: None, None)
    try:
        connection = libvirt.open(uri)
    except libvirt.libvirtError as error:
        raise errors.LibvirtFault(
            f"no connection to libvirt at {uri}: {error}: start libvirtd, and "
            f"run this as {user}"
        ) from error
    try:
        yield connection
    finally:
        connection.close()
