# SPDX-License-Identifier: Apache-2.0

"""Odd images that a backend must refuse, and one that it must handle."""

import pathlib
import struct

from tests.testbed.guest.disk import run


def corrupt_qcow2(path: pathlib.Path) -> pathlib.Path:
    """Write a broken qcow2 that only qemu-img finds to be broken.

    Glance and Nova inspect the header (oslo.utils) and find nothing unsafe.
    """
    # magic, version, backing file (none), cluster bits (the format has 9 to
    # 21), size, encryption (none), then tables far beyond the file's end
    header = struct.pack(">4sIQIIQI", b"QFI\xfb", 3, 0, 0, 77, 1 << 30, 0)
    header += struct.pack(">IQQIIQ", 1 << 20, 1 << 60, 1 << 61, 9, 0, 0)
    # no features, 16-bit refcounts, the header's own length
    header += struct.pack(">QQQII", 0, 0, 0, 4, 104)
    path.write_bytes(header.ljust(65536, b"\0"))
    return path


def qcow2_with_host_file(
    path: pathlib.Path, host_file: str = "/etc/hostname"
) -> pathlib.Path:
    """Write a qcow2 whose backing file would let a guest read host_file."""
    run(
        *("qemu-img", "create", "-q", "-f", "qcow2", "-u"),
        *("-b", host_file, "-F", "raw", path, "1M"),
    )
    return path


def big_sparse_raw(
    path: pathlib.Path, size_bytes: int = 20 << 30
) -> pathlib.Path:
    """Write a raw image with a large size and little data.

    The data is at the start and at the very end, so that a copy that stops at
    the last hole loses the end.
    """
    with path.open("wb") as file:
        file.write(b"start".ljust(4096, b"\0"))
        file.truncate(size_bytes)
        file.seek(size_bytes - 4096)
        file.write(b"end".rjust(4096, b"\0"))
    return path
