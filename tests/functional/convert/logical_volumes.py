# SPDX-License-Identifier: Apache-2.0

"""A volume group on loop devices, which does not need a device-mapper.

LVM's own record of the volumes' names is real. The links in /dev/GROUP are
made here, in place of udev and the kernel: each volume is a loop device, and
its name is a link to it, which is renamed or removed together with the volume.
"""

import os
import pathlib
import shutil
import subprocess
import uuid

LVM_CONF = """
global {{ activation = 0
  use_lvmpolld = 0
  locking_dir = "{folder}/lock" }}
devices {{ filter = [ "a|^{device}$|", "r|.*|" ]
  use_devicesfile = 0 }}
backup {{ backup = 0
  archive = 0 }}
"""

# Stands before LVM's own program in PATH.
PROGRAM = """\
#!/bin/sh -e
{program} "$@"
[ "{name}" = lvrename ] && mv "/dev/$1" "/dev/{group}/$2"
[ "{name}" = lvremove ] && rm "/dev/$2"
exit 0
"""


def run(*words: object) -> str:
    return subprocess.run(
        list(map(str, words)), check=True, capture_output=True, text=True
    ).stdout


class VolumeGroup:
    """A volume group; LVM's programs have to run in its ``environment``."""

    def __init__(self, folder: pathlib.Path):
        self.name = f"test{uuid.uuid4().hex[:8]}"
        self.folder = folder
        self.programs = folder / "lvm-bin"
        self._loops: list[str] = []
        self._device = self._loop("pv", 64 << 20)
        (folder / "lvm.conf").write_text(
            LVM_CONF.format(folder=folder, device=self._device)
        )
        self._lvm("pvcreate", self._device)
        # vgcreate fails if /dev has this name already, so the folder is made
        # after it.
        self._lvm("vgcreate", self.name, self._device)
        self.links = pathlib.Path("/dev") / self.name
        self.links.mkdir()
        self.programs.mkdir()
        for name in ("lvrename", "lvremove"):
            program = self.programs / name
            program.write_text(
                PROGRAM.format(
                    name=name,
                    program=shutil.which(name) or f"/sbin/{name}",
                    group=self.name,
                )
            )
            program.chmod(0o755)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LVM_SYSTEM_DIR": str(self.folder),
            "PATH": f"{self.programs}:{os.environ['PATH']}",
        }

    def add(self, volume: str, data: bytes) -> pathlib.Path:
        """Make a volume, and return its path as Nova uses it."""
        self._lvm(
            *("lvcreate", "-an", "-Zn", "-Wn", "-L", "4M"),
            *("-n", volume, self.name),
        )
        device = self._loop(volume, len(data))
        pathlib.Path(device).write_bytes(data)
        path = self.links / volume
        path.symlink_to(device)
        return path

    def volumes(self) -> list[str]:
        """Return the names of the volumes in LVM's own record."""
        said = self._lvm("lvs", "--noheadings", "-o", "lv_name", self.name)
        return said.split()

    def remove(self) -> None:
        shutil.rmtree(self.links, ignore_errors=True)
        self._lvm("vgremove", "--force", self.name)
        for device in self._loops:
            run("losetup", "-d", device)

    def _lvm(self, program: str, *words: object) -> str:
        path = shutil.which(program) or f"/sbin/{program}"
        environment = {**os.environ, "LVM_SYSTEM_DIR": str(self.folder)}
        return subprocess.run(
            [path, *map(str, words)],
            check=True,
            capture_output=True,
            text=True,
            env=environment,
        ).stdout

    def _loop(self, name: str, size: int) -> str:
        file = self.folder / f"{name}.loop"
        file.touch()
        os.truncate(file, size)
        device = run("losetup", "-f", "--show", file).strip()
        self._loops.append(device)
        return device
