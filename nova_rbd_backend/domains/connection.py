# SPDX-License-Identifier: Apache-2.0

"""The connection to libvirt, for the commands.

nova-rbd loads all of its commands when it starts, also on hosts without
libvirt. So what they import loads there too, and the connection, which comes
before everything else, says that libvirt is missing.
"""

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

from nova_rbd_backend import errors


@contextlib.contextmanager
def connected(uri: str, user: str) -> Iterator[Any]:
    """Lend a connection to libvirt.

    :param uri: Nova's [libvirt] connection_uri; empty: qemu:///system
    :param user: who may use it, for the text of an error
    :raises errors.LibvirtFault: there is no connection
    """
    uri = uri or "qemu:///system"
    try:
        libvirt = importlib.import_module("libvirt")
    except ImportError as error:
        raise errors.LibvirtFault(
            f"{error}: install python3-libvirt"
        ) from error
    # libvirt's default handler would print every error a second time.
    libvirt.registerErrorHandler(lambda *_: None, None)
    try:
        connection = libvirt.open(uri)
    except libvirt.libvirtError as error:
        raise errors.LibvirtFault(
            f"no connection to libvirt at {uri}: {error}: start libvirtd, and "
            f"run this as {user}"
        ) from error
    with contextlib.closing(connection):
        yield connection
