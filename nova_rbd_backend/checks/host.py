# SPDX-License-Identifier: Apache-2.0

"""Does this host have the programs and modules that this backend needs?"""

import importlib
import shutil
import subprocess
import sys

from nova_rbd_backend import errors
from nova_rbd_backend.checks.steps import Step

#: Ceph's Python modules, and the Debian packages that have them.
CEPH_MODULES = {"rados": "python3-rados", "rbd": "python3-rbd"}
MODULES = {**CEPH_MODULES, "libvirt": "python3-libvirt"}
_QEMU_SECONDS = 30


def require_ceph_modules() -> None:
    """:raises errors.ConfigError: a module of Ceph's cannot be imported"""
    for module in CEPH_MODULES:
        require_module(module)


def require_module(module: str) -> None:
    """:raises errors.ConfigError: it cannot be imported"""
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise errors.ConfigError(
            f"the Python module {module} cannot be imported ({error}): "
            f"install {MODULES[module]} for the Python that runs this, "
            f"{sys.executable}"
        ) from error


def _check_qemu() -> str | None:
    """Let qemu-img load its rbd driver, which is also the driver of QEMU.

    qemu-img's list of formats has formats that are not installed, too (7.2).
    """
    program = shutil.which("qemu-img")
    if program is None:
        return "there is no qemu-img, so QEMU's drivers are not known"
    done = subprocess.run(  # noqa: S603
        [program, "info", "--image-opts", "driver=rbd"],
        capture_output=True,
        text=True,
        timeout=_QEMU_SECONDS,
        check=False,
    )
    # A driver that is installed complains about a missing pool.
    if "Unknown driver" not in done.stderr:
        return None
    raise errors.ConfigError(
        "QEMU cannot open RBD images, so no guest would start: install its "
        "rbd driver (Debian, Ubuntu: qemu-block-extra; Fedora, RHEL: "
        "qemu-kvm-block-rbd)"
    )


#: The check that QEMU can open RBD images.
QEMU = Step("QEMU's rbd driver", _check_qemu)
