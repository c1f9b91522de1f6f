# SPDX-License-Identifier: Apache-2.0

"""What qemu-img tells of a local disk before it is copied."""

import json
import os
from typing import Any

from nova_rbd_backend import errors
from nova_rbd_backend.convert import program

_ASK_SECONDS = 60


def inspect(path: str, form: str, instances: str) -> tuple[int, int]:
    """Return the size of a local disk, and how much of it may be data.

    :param form: its format, ``raw`` or ``qcow2``
    :param instances: the folder with Nova's disks and their backing files
    :returns: both in bytes
    :raises ConversionRefused: the disk is encrypted, or depends on a file
        elsewhere
    """
    disk = ("-f", form, path)
    layers = _asked("info", "-U", "--backing-chain", *disk)
    for index, layer in enumerate(layers):
        _refuse_strange(layer, index, instances)
    found = _asked("measure", "-U", "-O", "raw", *disk)
    size = int(layers[0]["virtual-size"])
    return size, min(size, int(found["required"]))


def _refuse_strange(layer: Any, index: int, instances: str) -> None:
    path = layer["filename"]
    data = layer.get("format-specific", {}).get("data", {})
    folder = os.path.realpath(instances)
    why = None
    if layer.get("encrypted"):
        why = "it is encrypted, which Nova cannot do with disks on RBD"
    elif data.get("data-file"):
        why = "it keeps its data in another file, which Nova never does"
    elif layer.get("backing-filename") and not layer.get(
        "backing-filename-format"
    ):
        why = (
            "it does not name the format of its backing file: set it with "
            "`qemu-img rebase -u -F FORMAT -b FILE`"
        )
    elif index and not os.path.realpath(path).startswith(f"{folder}{os.sep}"):
        why = f"a backing file outside of {instances} is nothing of Nova's"
    if why:
        raise errors.ConversionRefused(f"{path}: {why}")


def _asked(what: str, *words: str) -> Any:
    command = ["qemu-img", what, "--output=json", *words]
    return json.loads(program.output(command, _ASK_SECONDS))
