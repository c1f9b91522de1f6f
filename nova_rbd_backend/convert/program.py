# SPDX-License-Identifier: Apache-2.0

"""Run a program of the host to its end."""

import os
import subprocess

from nova_rbd_backend import errors
from nova_rbd_backend.ceph.qemu_img import one_line


def output(command: list[str], limit_seconds: float) -> str:
    """Run a program to its end, and return what it prints.

    :raises ConversionError: it failed, or took longer
    """
    try:
        done = subprocess.run(  # noqa: S603
            command,
            capture_output=True,
            text=True,
            timeout=limit_seconds,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise errors.ConversionError(f"{command[0]}: {error}") from error
    if done.returncode:
        raise errors.ConversionError(
            f"{' '.join(command)}: {one_line(done.stderr)}"
        )
    return done.stdout
