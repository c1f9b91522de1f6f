# SPDX-License-Identifier: Apache-2.0

"""The guest's initial file system: busybox, a few modules, our init."""

import gzip
import lzma
import pathlib
import re
import stat

from tests.testbed.guest.disk import run
from tests.testbed.process import TestbedError

PARTS = pathlib.Path(__file__).parent / "parts"
# To find the disks; then what can wait until the marker is out.  Debian's
# cloud kernel has no ahci: a CD-ROM needs IDE (machine type pc) or SCSI.
FIRST = ("virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod")
LATER = (
    *("virtio_console", "virtio_balloon", "virtio_rng"),
    *("ata_piix", "sr_mod", "isofs"),
    *("vfat", "nls_ascii", "nls_cp437", "nls_iso8859-1", "nls_utf8"),
    *("evdev", "button"),
)
FOLDERS = (
    *("bin", "config", "dev", "etc", "etc/acpi", "etc/acpi/PWRF"),
    *("modules", "proc", "root", "run", "sbin", "sys", "tmp"),
)


class CpioWriter:
    """An archive in cpio's "newc" form, the same bytes for the same files."""

    def __init__(self) -> None:
        self._out = bytearray()
        self._inode = 0

    def add(self, name: str, mode: int, data: bytes = b"") -> None:
        self._inode += 1
        path = name.encode() + b"\0"
        # inode mode uid gid nlink mtime size major minor rmajor rminor
        # namesize check
        fields = [self._inode, mode, 0, 0, 1, 0, len(data)]
        fields += [0, 0, 0, 0, len(path), 0]
        self._out += b"070701" + b"".join(b"%08X" % f for f in fields)
        self._out += path
        self._pad()
        self._out += data
        self._pad()

    def _pad(self) -> None:
        self._out += bytes(-len(self._out) % 4)

    def finish(self) -> bytes:
        self.add("TRAILER!!!", 0)
        return bytes(self._out)


class Modules:
    """The kernel's modules, found and put in order without depmod."""

    def __init__(self, root: pathlib.Path):
        # lib/modules on Debian 12, usr/lib/modules after it
        (self._folder,) = root.glob("**/lib/modules/*")
        files = self._folder.glob("kernel/**/*.ko*")
        self._files = {_plain(f.name.split(".")[0]): f for f in files}
        built_in = (self._folder / "modules.builtin").read_text().split()
        self._built_in = {_plain(pathlib.Path(b).stem) for b in built_in}

    def in_order(self, names: tuple[str, ...]) -> list[pathlib.Path]:
        """Return the files to load, each after those that it needs.

        They are *.ko; the compressed ones (Debian 13) have been decompressed.
        """
        order: dict[pathlib.Path, None] = {}
        for name in names:
            self._visit(_plain(name), order)
        return list(order)

    def _visit(self, name: str, order: dict[pathlib.Path, None]) -> None:
        if name in self._built_in:
            return
        try:
            file = self._files[name]
        except KeyError:
            raise TestbedError(f"no module {name} in {self._folder}") from None
        if file.suffix == ".xz":
            compressed, file = file, file.with_suffix("")
            file.write_bytes(lzma.decompress(compressed.read_bytes()))
            self._files[name] = file
        needs = re.search(rb"\0depends=([^\0]*)\0", file.read_bytes())
        for need in filter(None, (needs[1] if needs else b"").split(b",")):
            self._visit(_plain(need.decode()), order)
        order[file] = None


def _plain(name: str) -> str:
    return name.replace("-", "_")


def make_initrd(init: pathlib.Path, unpacked: pathlib.Path) -> bytes:
    """Return the gzipped archive.

    :param init: the program that the kernel starts
    :param unpacked: where the packages of the kernel and of busybox are
    """
    modules = Modules(unpacked)
    first, later = modules.in_order(FIRST), modules.in_order(LATER)
    cpio = CpioWriter()
    for folder in FOLDERS:
        cpio.add(folder, stat.S_IFDIR | 0o755)
    program = stat.S_IFREG | 0o755
    (binary,) = (b for b in unpacked.glob("**/bin/busybox") if b.is_file())
    cpio.add("bin/busybox", program, binary.read_bytes())
    cpio.add("bin/sh", stat.S_IFLNK | 0o777, b"busybox")
    cpio.add("init", program, init.read_bytes())
    shutdown = (PARTS / "shutdown").read_bytes()
    cpio.add("sbin/shutdown", program, shutdown)
    # The name that busybox's acpid runs for the power button.
    cpio.add("etc/acpi/PWRF/00000080", program, shutdown)
    for name, files in (("first", first), ("later", later)):
        lines = "".join(f"/modules/{file.name}\n" for file in files)
        cpio.add(f"modules/{name}", stat.S_IFREG | 0o644, lines.encode())
    for file in dict.fromkeys(first + later):
        # Without its signature, which takes an emulated kernel long to check.
        run("strip", "--strip-debug", file)
        cpio.add(
            f"modules/{file.name}", stat.S_IFREG | 0o644, file.read_bytes()
        )
    return gzip.compress(cpio.finish(), mtime=0)
