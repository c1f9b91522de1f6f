# SPDX-License-Identifier: Apache-2.0

"""Run nova-rbd as an operator does, in a process of its own."""

import json
import pathlib
import subprocess
import sys

NOVA_CONF = """\
[DEFAULT]
compute_driver = rbd_backend.LibvirtDriver
libvirt_images_type = {images_type}
libvirt_images_store = vms
libvirt_images_snapshot_store = snapshots
rbd_user = nova
rbd_secret_uuid = 5e5e5e5e-0000-4000-8000-000000000001
[libvirt]
images_rbd_ceph_conf = {ceph_conf}
"""


class Program:
    """The program nova-rbd, with a nova.conf for one cluster."""

    def __init__(
        self, folder: pathlib.Path, ceph_conf: object, images_type: str = "rbd"
    ):
        self.conf = folder / "nova.conf"
        self.conf.write_text(
            NOVA_CONF.format(ceph_conf=ceph_conf, images_type=images_type)
        )

    def command(self, *words: str) -> list[str]:
        """Return the command line that runs the program with these words."""
        # The installed script: `python -m` would find an old egg-info in the
        # current folder.
        program = str(pathlib.Path(sys.executable).with_name("nova-rbd"))
        return [program, "--config-file", str(self.conf), *words]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run one command to its end, and print its output."""
        done = subprocess.run(
            self.command(*words),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        print(f"$ nova-rbd {' '.join(words)}")
        print(done.stdout + done.stderr)
        return done

    def table(self, *words: str) -> str:
        """Return what a command prints; the command has to succeed."""
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, *words: str):
        """Return the rows of a command, which has to succeed."""
        return json.loads(self.table(*words, "-f", "json"))

    def read(self, done: subprocess.CompletedProcess[str]):
        """Return the rows of a command run with ``-f json``.

        The command may have failed.
        """
        return json.loads(done.stdout)

    def refused(self, *words: str) -> str:
        """Return the one-line error with which a command refuses."""
        done = self.run(*words)
        assert done.returncode == 1
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        return line
