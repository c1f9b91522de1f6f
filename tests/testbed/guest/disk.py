# SPDX-License-Identifier: Apache-2.0

"""The guest's disk: an MBR, a FAT boot partition, ext4, a raw partition.

Made without root, loop devices or mounts.
"""

import pathlib
import struct
import subprocess

from tests.testbed.process import TestbedError

SECTOR = 512
MIB_SECTORS = (1 << 20) // SECTOR
# (first sector, sectors, MBR type): boot, root, the counter's ring
BOOT = (1 * MIB_SECTORS, 20 * MIB_SECTORS, 0x06)
ROOT = (21 * MIB_SECTORS, 14 * MIB_SECTORS, 0x83)
RING = (35 * MIB_SECTORS, 1 * MIB_SECTORS, 0xDA)
DISK_BYTES = 37 << 20
MBR_CODE = pathlib.Path("/usr/lib/syslinux/mbr/mbr.bin")


def make_disk(
    image: pathlib.Path, boot_files: list[pathlib.Path], root: pathlib.Path
) -> None:
    """Write a raw disk image that SeaBIOS boots.

    :param boot_files: vmlinuz, initrd.gz and syslinux.cfg
    :param root: the folder whose content goes into the ext4 partition
    """
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
        file.write(_master_boot_record())
    _make_boot_partition(image, boot_files)
    first, sectors, _ = ROOT
    run(
        *("mke2fs", "-q", "-F", "-t", "ext4", "-L", "guest-root"),
        *("-E", f"offset={first * SECTOR},root_owner=0:0"),
        *("-d", root, image, f"{sectors // 2}k"),
    )


def _master_boot_record() -> bytes:
    code = MBR_CODE.read_bytes()[:440].ljust(440, b"\0")
    table = b"".join(
        _partition_entry(*partition) for partition in (BOOT, ROOT, RING)
    )
    signature = struct.pack("<IH", 0x5EED1234, 0)
    return code + signature + table.ljust(64, b"\0") + b"\x55\xaa"


def _partition_entry(first: int, sectors: int, kind: int) -> bytes:
    active = 0x80 if kind == BOOT[2] else 0
    no_chs = b"\xfe\xff\xff"
    head = bytes([active]) + no_chs + bytes([kind]) + no_chs
    return head + struct.pack("<II", first, sectors)


def _make_boot_partition(
    image: pathlib.Path, files: list[pathlib.Path]
) -> None:
    first, sectors, _ = BOOT
    offset = first * SECTOR
    run(
        *("mkfs.vfat", "-F", "16", "-n", "BOOT", "--invariant"),
        *(f"--offset={first}", image, str(sectors // 2)),
    )
    run("mcopy", "-i", f"{image}@@{offset}", *files, "::/")
    run("syslinux", "--install", "--offset", str(offset), image)


def run(*command: str | pathlib.Path, cwd: pathlib.Path | None = None) -> str:
    """Return a short program's output; :raises TestbedError: it failed."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, cwd=cwd, timeout=300
        )
    except FileNotFoundError:
        raise TestbedError(f"{words[0]} is not installed") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise TestbedError(f"{' '.join(words)}: {said}")
    return done.stdout
