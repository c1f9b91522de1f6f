# SPDX-License-Identifier: Apache-2.0

"""Build the tests' tiny guest image from Debian's packages.

It needs neither root nor loop devices, boots by software emulation in a few
seconds and tells on its serial console what it finds: see parts/init.c.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator

from tests.testbed import paths
from tests.testbed.guest.disk import DISK_BYTES, make_disk, run
from tests.testbed.guest.initrd import make_initrd
from tests.testbed.process import TestbedError

KERNEL_METAPACKAGE = "linux-image-cloud-amd64"
PROGRAMS = ("busybox-static", "qemu-guest-agent")
SOURCES = ("building.py", "disk.py", "initrd.py")
# Static, since the guest has no libraries until its root disk is mounted.
COMPILE = ("gcc", "-std=gnu11", "-Os", "-Wall", "-Wextra", "-static", "-s")
# apt's own user may not write into a folder of ours.
APT_OPTIONS = ("-qq", "-o", "APT::Sandbox::User=root")


@dataclasses.dataclass(frozen=True)
class GuestImage:
    """The same disk in two formats; size_bytes is its virtual size."""

    raw: pathlib.Path
    qcow2: pathlib.Path
    size_bytes: int = DISK_BYTES


def build() -> GuestImage:
    """Build the image; nothing to do when the inputs are as last time.

    The testbed's cache gets guest/ with guest.raw, guest.qcow2 and guest.json
    (the inputs), and cache/ with the downloaded packages.
    """
    folder, packages = paths.cache() / "guest", paths.cache() / "cache"
    for needed in (folder, packages):
        needed.mkdir(parents=True, exist_ok=True)
    with _locked(packages):
        return _build_once(folder, packages)


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[None]:
    """Let one build at a time use the folder; leaves no lock file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _build_once(folder: pathlib.Path, cache: pathlib.Path) -> GuestImage:
    packages = _download(cache)
    image = GuestImage(folder / "guest.raw", folder / "guest.qcow2")
    inputs = json.dumps(_inputs(packages), indent=1)
    record = folder / "guest.json"
    built = image.raw.exists() and image.qcow2.exists() and record.exists()
    if not built or record.read_text() != inputs:
        record.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            _build_in(pathlib.Path(work), packages, image)
        record.write_text(inputs)
    return image


def _inputs(packages: dict[str, pathlib.Path]) -> dict[str, str]:
    here = pathlib.Path(__file__).parent
    sources = [here / name for name in SOURCES]
    sources += sorted((here / "parts").iterdir())
    inputs = {
        str(path.relative_to(here)): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in sources
    }
    return inputs | {name: deb.name for name, deb in packages.items()}


# -- packages --------------------------------------------------------------


def _download(cache: pathlib.Path) -> dict[str, pathlib.Path]:
    """Return the .deb files of the kernel, its modules and our programs."""
    names = (*_kernel_packages(), *PROGRAMS)
    packages = {}
    for name, version in _candidates(names).items():
        pattern = f"{name}_{version.replace(':', '%3a')}_*.deb"
        if not list(cache.glob(pattern)):
            run("apt-get", *APT_OPTIONS, "download", name, cwd=cache)
        (packages[name],) = cache.glob(pattern)
    return packages


def _kernel_packages() -> tuple[str, ...]:
    """Return the packages that hold the kernel and its modules.

    That is linux-image-<version>. Since Debian 14 it is empty, and depends on
    linux-binary-<version>, linux-modules-<version> and linux-base-<version>.
    """
    for update_first in (False, True):
        if update_first:
            run("apt-get", *APT_OPTIONS, "update")
        if packages := _kernel_dependencies(KERNEL_METAPACKAGE):
            return tuple(dict.fromkeys(packages))
    raise TestbedError(f"apt knows no {KERNEL_METAPACKAGE}")


def _kernel_dependencies(package: str) -> list[str]:
    depends = run("apt-cache", "depends", package)
    direct = re.findall(
        r"Depends: (linux-(?:image|binary|modules|base)-\S+)", depends
    )
    return [
        name for each in direct for name in (each, *_kernel_dependencies(each))
    ]


def _candidates(packages: tuple[str, ...]) -> dict[str, str]:
    """Return the version of each that apt would download."""
    policy = run("env", "LC_ALL=C", "apt-cache", "policy", *packages)
    found = re.findall(
        r"^(\S+):\n.*\n  Candidate: (\S+)", policy, re.MULTILINE
    )
    versions = {name: v for name, v in found if v != "(none)"}
    if missing := set(packages) - set(versions):
        raise TestbedError(f"apt knows no {missing}: run apt-get update")
    return versions


# -- the image -------------------------------------------------------------


def _build_in(
    work: pathlib.Path,
    packages: dict[str, pathlib.Path],
    image: GuestImage,
) -> None:
    unpacked = work / "packages"
    for deb in packages.values():
        run("dpkg-deb", "-x", deb, unpacked)
    here = pathlib.Path(__file__).parent
    init = work / "init"
    run(*COMPILE, "-o", init, here / "parts/init.c")
    boot = work / "boot"
    boot.mkdir()
    # In boot/, since Debian 14 beside the modules.
    (vmlinuz,) = unpacked.glob("**/vmlinuz*")
    shutil.copyfile(vmlinuz, boot / "vmlinuz")
    (boot / "initrd.gz").write_bytes(make_initrd(init, unpacked))
    shutil.copyfile(here / "parts/syslinux.cfg", boot / "syslinux.cfg")
    root = work / "root"
    _install_agent(unpacked / "usr/sbin/qemu-ga", root / "agent")
    raw, qcow2 = work / "guest.raw", work / "guest.qcow2"
    make_disk(raw, sorted(boot.iterdir()), root)
    run("qemu-img", "convert", "-q", "-c", "-O", "qcow2", raw, qcow2)
    raw.replace(image.raw)
    qcow2.replace(image.qcow2)


def _install_agent(agent: pathlib.Path, target: pathlib.Path) -> None:
    """Copy the guest agent with this machine's libraries that it needs."""
    target.mkdir(parents=True)
    program = target / "qemu-ga"
    shutil.copy(agent, program)
    lines = run("ldd", program)
    if "not found" in lines:
        raise TestbedError(f"qemu-ga lacks libraries here:\n{lines}")
    for library in re.findall(r"=> (/\S+)", lines):
        shutil.copy(library, target)
    (loader,) = re.findall(r"^\s*(/\S+ld-linux\S+)", lines, re.MULTILINE)
    shutil.copy(loader, target / "ld.so")
