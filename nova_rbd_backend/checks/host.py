# SPDX-License-Identifier: Apache-2.0

"""Are the programs and Python modules there that this backend needs?"""

import functools
import importlib
import shutil
import subprocess
import sys

from nova_rbd_backend import errors
from nova_rbd_backend.checks.steps import Step

#: Python modules of Ceph, and the Debian packages that have them.
CEPH_MODULES = {"rados": "python3-rados", "rbd": "python3-rbd"}
#: The same, with libvirt's.
MODULES = {**CEPH_MODULES, "libvirt": "python3-libvirt"}
_QEMU_SECONDS = 30


def module_step(module: str) -> Step:
    """Return the check that a module can be imported."""
    name = f"Python module {module}"
    return Step(name, functools.partial(_require_module, module))


def require_ceph_modules() -> None:
    """Refuse to go on without Ceph's Python modules.

    :raises errors.ConfigError: one cannot be imported
    """
    for module in CEPH_MODULES:
        _require_module(module)


def can_import(module: str) -> bool:
    """Return whether a module is there and can be loaded."""
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


def _require_module(module: str) -> None:
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise errors.ConfigError(
            f"the Python module {module} cannot be imported ({error}): "
            f"install {MODULES[module]} for the Python that runs this, "
            f"{sys.executable}"
        ) from error


def _check_qemu() -> str | None:
    """Let qemu-img load its rbd driver; the QEMU beside it has the same.

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
    # A driver that is installed asks for a pool.
    if "Unknown driver" not in done.stderr:
        return None
    raise errors.ConfigError(
        "QEMU cannot open RBD images, so no guest would start: install its "
        "rbd driver (Debian, Ubuntu: qemu-block-extra; Fedora, RHEL: "
        "qemu-kvm-block-rbd)"
    )


#: The check that QEMU can open RBD images.
QEMU = Step("QEMU's rbd driver", _check_qemu)
