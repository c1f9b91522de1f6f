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

from tests.testbed.guest.disk import DISK_BYTES, make_disk, run
from tests.testbed.guest.initrd import make_initrd
from tests.testbed.process import TestbedError

KERNEL_METAPACKAGE = "linux-image-cloud-amd64"
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


def build(folder: pathlib.Path, cache: pathlib.Path) -> GuestImage:
    """Build the image; nothing to do when the inputs are as last time.

    :param folder: gets guest.raw, guest.qcow2 and guest.json (the inputs)
    :param cache: keeps the downloaded packages
    """
    folder, cache = folder.absolute(), cache.absolute()
    for needed in (folder, cache):
        needed.mkdir(parents=True, exist_ok=True)
    with _locked(cache):
        return _build_once(folder, cache)


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
    """Return kernel, busybox-static and qemu-guest-agent as .deb files."""
    names = (_kernel_package(), "busybox-static", "qemu-guest-agent")
    packages = {}
    for name, version in _candidates(names).items():
        pattern = f"{name}_{version.replace(':', '%3a')}_*.deb"
        if not list(cache.glob(pattern)):
            run("apt-get", *APT_OPTIONS, "download", name, cwd=cache)
        (packages[name],) = cache.glob(pattern)
    return packages


def _kernel_package() -> str:
    for update_first in (False, True):
        if update_first:
            run("apt-get", *APT_OPTIONS, "update")
        depends = run("apt-cache", "depends", KERNEL_METAPACKAGE)
        match = re.search(r"Depends: (linux-image-\S+)", depends)
        if match:
            return match[1]
    raise TestbedError(f"apt knows no {KERNEL_METAPACKAGE}")


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
    for number, deb in enumerate(packages.values()):
        run("dpkg-deb", "-x", deb, work / str(number))
    kernel, busybox, agent = (work / str(n) for n in range(3))
    here = pathlib.Path(__file__).parent
    init = work / "init"
    run(*COMPILE, "-o", init, here / "parts/init.c")
    boot = work / "boot"
    boot.mkdir()
    (vmlinuz,) = (kernel / "boot").glob("vmlinuz-*")
    shutil.copyfile(vmlinuz, boot / "vmlinuz")
    (boot / "initrd.gz").write_bytes(make_initrd(init, kernel, busybox))
    shutil.copyfile(here / "parts/syslinux.cfg", boot / "syslinux.cfg")
    root = work / "root"
    _install_agent(agent, root / "agent")
    raw, qcow2 = work / "guest.raw", work / "guest.qcow2"
    make_disk(raw, sorted(boot.iterdir()), root)
    run("qemu-img", "convert", "-q", "-c", "-O", "qcow2", raw, qcow2)
    raw.replace(image.raw)
    qcow2.replace(image.qcow2)


def _install_agent(package: pathlib.Path, target: pathlib.Path) -> None:
    """Copy the guest agent with this machine's libraries that it needs."""
    target.mkdir(parents=True)
    program = target / "qemu-ga"
    shutil.copy(package / "usr/sbin/qemu-ga", program)
    lines = run("ldd", program)
    if "not found" in lines:
        raise TestbedError(f"qemu-ga lacks libraries here:\n{lines}")
    for library in re.findall(r"=> (/\S+)", lines):
        shutil.copy(library, target)
    (loader,) = re.findall(r"^\s*(/\S+ld-linux\S+)", lines, re.MULTILINE)
    shutil.copy(loader, target / "ld.so")
