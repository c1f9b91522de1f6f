# SPDX-License-Identifier: Apache-2.0

"""qemu-img: bytes of a local disk in any of Nova's formats, into Ceph.

One program reads all formats, copies and compares them: as QEMU shows them
to the guest. The format is always given: it would guess it from what the
guest wrote.
"""

import dataclasses
import json
import os
import re
import select
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from nova_rbd_backend import errors

#: Told how many bytes of the disk are done; may raise to end it.
Progress = Callable[[int], None]

_ASK_SECONDS = 60
#: Without any progress for so long it is given up.
STALL_SECONDS = 600.0
_TICK_SECONDS = 1.0
_SHARE = re.compile(rb"\((\d+\.\d+)/100%\)")
#: No smaller hole is looked for, as when an image is imported.
_HOLE_BYTES = "64k"
_DIFFERS = 1


@dataclasses.dataclass(frozen=True)
class ImageInfo:
    """:ivar size_bytes: what the guest sees
    :ivar needed_bytes: what of it holds data, at most
    """

    size_bytes: int
    needed_bytes: int


@dataclasses.dataclass(frozen=True)
class QemuImage:
    """What qemu-img can open: a path, or ``rbd:...`` as raw."""

    path: str
    format: str


def inspect(image: QemuImage, instances: str) -> ImageInfo:
    """Sizes of a local disk, and whether it may be read at all.

    :param instances: where Nova keeps disks and what they are based on
    :raises ConversionRefused: it is encrypted, or hangs on a file elsewhere
    """
    said = _asked("info", "-U", "--backing-chain", "-f", image.format, image)
    for index, layer in enumerate(said):
        _refuse_strange(layer, index, instances)
    found = _asked("measure", "-U", "-O", "raw", "-f", image.format, image)
    size = int(said[0]["virtual-size"])
    return ImageInfo(size, min(size, int(found["required"])))


def _refuse_strange(layer: Any, index: int, instances: str) -> None:
    path = layer["filename"]
    data = layer.get("format-specific", {}).get("data", {})
    why = None
    if layer.get("encrypted"):
        why = "it is encrypted, which Nova cannot do with disks on RBD"
    elif data.get("data-file"):
        why = "it keeps its data in another file, which Nova never does"
    elif layer.get("backing-filename") and not layer.get(
        "backing-filename-format"
    ):
        why = (
            "it does not say of which format its backing file is: tell it "
            "with `qemu-img rebase -u -F FORMAT -b FILE`"
        )
    elif index and not _is_below(path, instances):
        why = f"a backing file outside of {instances} is nothing of Nova's"
    if why:
        raise errors.ConversionRefused(f"{path}: {why}")


def _is_below(path: str, folder: str) -> bool:
    folder = os.path.realpath(folder)
    return os.path.realpath(path).startswith(f"{folder}{os.sep}")


def copy(
    source: QemuImage, target: str, size: int, progress: Progress
) -> None:
    """Write all data into an empty image of the same size.

    Zeros and holes are left out. On return all is stored.

    :param target: ``rbd:...``
    :raises ConversionError: it could not be read or written
    """
    words = ["convert", "-p", "-n", "--target-is-zero", "-t", "none", "-W"]
    words += ["-m", "8", "-S", _HOLE_BYTES]
    words += ["-f", source.format, "-O", "raw", source.path, target]
    code, said = _run(words, size, progress)
    if code:
        raise errors.ConversionError(f"copy {source.path}: {said}")


def are_same(
    one: QemuImage, other: str, size: int, progress: Progress
) -> bool:
    """Read both from end to end, and compare each byte.

    :param other: ``rbd:...``
    :raises ConversionError: one could not be read
    """
    # Not strictly: a hole is the same as zeros.
    words = ["compare", "-p", "-f", one.format, "-F", "raw"]
    code, said = _run([*words, one.path, other], size, progress)
    if code > _DIFFERS:
        raise errors.ConversionError(f"compare {one.path}: {said}")
    return code == 0


def _asked(what: str, *words: str | QemuImage) -> Any:
    path = [w.path if isinstance(w, QemuImage) else w for w in words]
    try:
        done = subprocess.run(  # noqa: S603
            ["qemu-img", what, "--output=json", *path],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=_ASK_SECONDS,
            check=False,
            env=_environment(),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise errors.ConversionError(f"qemu-img {what}: {error}") from error
    if done.returncode:
        raise errors.ConversionError(_one_line(done.stderr))
    return json.loads(done.stdout)


def _run(words: list[str], size: int, progress: Progress) -> tuple[int, str]:
    """Exit status and what was said; dies with this process."""
    command = ["setpriv", "--pdeathsig", "KILL", "qemu-img", *words]
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
            env=_environment(),
        ) as process,
    ):
        try:
            for share in _shares(process):
                progress(int(size * share))
            code = process.wait(_ASK_SECONDS)
        except BaseException:
            process.kill()
            raise
        said.seek(0)
        return code, _one_line(said.read())


def _shares(process: "subprocess.Popen[bytes]") -> Iterator[float]:
    """What of it is done, again at least every second; ends with it.

    :raises ConversionError: nothing moves
    """
    assert process.stdout is not None
    stream = process.stdout.fileno()
    share, moved = 0.0, time.monotonic()
    while True:
        yield share
        ready, _, _ = select.select([stream], [], [], _TICK_SECONDS)
        data = os.read(stream, 4096) if ready else None
        if data == b"":
            return
        found = _SHARE.findall(data or b"")
        if found and float(found[-1]) / 100 != share:
            share, moved = float(found[-1]) / 100, time.monotonic()
        if time.monotonic() - moved > STALL_SECONDS:
            raise errors.ConversionError(
                f"qemu-img got no further for {STALL_SECONDS:g} s: check "
                "'ceph health'"
            )


def _environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C"}


def _one_line(text: str) -> str:
    return "; ".join(filter(None, map(str.strip, text.splitlines())))
