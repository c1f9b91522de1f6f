# SPDX-License-Identifier: Apache-2.0

"""qemu-img: copy a local file in any of QEMU's formats into an image.

One program reads all formats, and copies and compares the bytes that QEMU
shows to the guest. It is always told the format. Otherwise it would guess the
format from what a guest has written.
"""

import os
import re
import select
import subprocess
import tempfile
import time
from collections.abc import Iterator

from nova_rbd_backend import errors
from nova_rbd_backend.ceph.transfer import Progress

_EXIT_SECONDS = 60
#: The work is given up if nothing has moved for so long.
STALL_SECONDS = 600.0
_TICK_SECONDS = 1.0
_SHARE = re.compile(rb"\((\d+\.\d+)/100%\)")
#: What qemu-img says if the fault is in the file that it reads.
_UNREADABLE = re.compile(r"error while reading|Could not open '(?!rbd:)")
#: Smaller holes are copied as data, as when an image is imported.
_HOLE_BYTES = "64k"
_DIFFERS = 1


def copy(
    path: str, form: str, target: str, size: int, progress: Progress
) -> None:
    """Write all data of a disk into an empty image of the same size.

    Zeros and holes are left out. On return all data is stored.

    :param target: ``rbd:...``
    :param progress: told how many bytes of the disk are done; may raise to
        end the work
    :raises UnreadableFile: the file is damaged
    :raises ConversionError: the image could not be written
    """
    words = ["convert", "-p", "-n", "--target-is-zero", "-t", "none", "-W"]
    words += ["-m", "8", "-S", _HOLE_BYTES, "-f", form, "-O", "raw"]
    _run(words, path, target, size, progress)


def are_same(
    path: str, form: str, image: str, size: int, progress: Progress
) -> bool:
    """Read a disk and an image from end to end, and compare each byte.

    :param image: ``rbd:...``
    :raises ConversionError: one of them could not be read
    """
    # Without -s (strict), so that a hole equals zeros.
    words = ["compare", "-p", "-f", form, "-F", "raw"]
    return _run(words, path, image, size, progress, also=_DIFFERS) == 0


def _run(
    words: list[str],
    path: str,
    image: str,
    size: int,
    progress: Progress,
    also: int = 0,
) -> int:
    """Run qemu-img, which dies with this process; return its exit status.

    :param also: an exit status that is no error, beside 0
    """
    command = ["setpriv", "--pdeathsig", "KILL", "qemu-img", *words]
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(  # noqa: S603
            [*command, path, image],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
            env={**os.environ, "LC_ALL": "C"},
        ) as process,
    ):
        try:
            for share in _shares(process):
                progress(int(size * share))
            code = process.wait(_EXIT_SECONDS)
        except BaseException:
            process.kill()
            raise
        said.seek(0)
        if code not in (0, also):
            text = one_line(said.read())
            found = _UNREADABLE.search(text)
            error = errors.UnreadableFile if found else errors.ConversionError
            raise error(f"{words[0]} {path}: {text}")
        return code


def _shares(process: "subprocess.Popen[bytes]") -> Iterator[float]:
    """Yield the share that is done, at least every second, until the end.

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
                f"qemu-img made no progress for {STALL_SECONDS:g} s: check "
                "'ceph health'"
            )


def one_line(text: str) -> str:
    """Return what a program printed as one line."""
    return "; ".join(filter(None, map(str.strip, text.splitlines())))
