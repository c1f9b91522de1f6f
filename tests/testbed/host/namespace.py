# SPDX-License-Identifier: Apache-2.0

"""Program: become the first process of a simulated host, and wait.

Run as ``python namespace.py '<JSON>'``, see Machine. It enters mount and UTS
namespaces of its own, mounts the host's folders over the machine's there, says
"ready" and sleeps; other processes join by nsenter. A mount point that the
machine lacks is made inside the namespace, never on the machine.
"""

import ctypes
import dataclasses
import json
import os
import pathlib
import signal
import socket
import sys

# linux/sched.h, linux/mount.h
CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18

_libc = ctypes.CDLL(None, use_errno=True)


@dataclasses.dataclass(frozen=True)
class Machine:
    """What the host has of its own.

    :param tag: source of its tmpfs, which marks its processes' mount tables
    :param staging: an existing empty folder; a tmpfs inside the namespace
    :param binds: path on the host -> file or folder to mount there
    """

    name: str
    tag: str
    staging: str
    binds: dict[str, str]

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mount(source: str, target: str, kind: str, flags: int) -> None:
    result = _libc.mount(
        source.encode(),
        target.encode(),
        kind.encode(),
        ctypes.c_ulong(flags),
        None,
    )
    _check(result, f"mount {source} on {target}")


def bind(source: pathlib.Path, target: pathlib.Path) -> None:
    _mount(str(source), str(target), "", MS_BIND | MS_REC)


def make_mount_point(target: pathlib.Path, staging: pathlib.Path) -> None:
    """Make a folder, unless it exists, inside this namespace only.

    A tmpfs is mounted over its nearest existing parent. The tmpfs shows all
    that the parent had, by bind mounts, and has room for the new folder.
    """
    if target.exists():
        return
    parent = next(p for p in target.parents if p.exists())
    if os.stat(parent).st_dev != os.stat(staging).st_dev:
        shadow = staging / str(parent).strip("/").replace("/", "-")
        shadow.mkdir()
        shadow.chmod(parent.stat().st_mode & 0o7777)
        for entry in parent.iterdir():
            _show(entry, shadow / entry.name)
        bind(shadow, parent)
    target.mkdir(parents=True)


def _show(entry: pathlib.Path, copy: pathlib.Path) -> None:
    if entry.is_symlink():
        copy.symlink_to(os.readlink(entry))
        return
    if entry.is_dir():
        copy.mkdir()
    else:
        copy.touch()
    bind(entry, copy)


def enter(machine: Machine) -> None:
    """Leave the machine's mounts and host name for the host's own."""
    _check(_libc.unshare(CLONE_NEWNS | CLONE_NEWUTS), "unshare")
    _mount("none", "/", "", MS_REC | MS_PRIVATE)
    socket.sethostname(machine.name)
    staging = pathlib.Path(machine.staging)
    _mount(machine.tag, machine.staging, "tmpfs", 0)
    for path, own in machine.binds.items():
        target, source = pathlib.Path(path), pathlib.Path(own)
        if source.is_dir():
            make_mount_point(target, staging)
        bind(source, target)


if __name__ == "__main__":
    enter(Machine(**json.loads(sys.argv[1])))
    print("ready", flush=True)
    signal.pause()
