# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

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
