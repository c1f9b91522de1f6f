# SPDX-License-Identifier: Apache-2.0

"""libvirt's secret driver in this process, with its own folder."""

import atexit
import functools
import shutil
import tempfile

import libvirt


@functools.cache
def embedded_secrets() -> libvirt.virConnect:
    """Return the connection; a process can have only one such driver.

    No secret can be undefined: virSecretUndefine crashes in it (libvirt 9.0).
    """
    libvirt.virEventRegisterDefaultImpl()
    libvirt.registerErrorHandler(lambda *_: None, None)
    root = tempfile.mkdtemp(prefix="secrets-")
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return libvirt.open(f"secret:///embed?root={root}")
