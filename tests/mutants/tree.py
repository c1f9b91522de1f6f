# SPDX-License-Identifier: Apache-2.0

"""Copies of the checkout in which faults are tried."""

import os
import pathlib
import shutil
import subprocess

from tests.testbed import paths


class Tree:
    """A copy of the checkout, with a folder for its Ceph clusters.

    :param folder: where the copy is, or will be
    """

    def __init__(self, folder: pathlib.Path):
        self.folder = folder

    def refresh(self) -> None:
        """Make the copy equal to the checkout, uncommitted changes included.

        Files that git ignores are left out.
        """
        shutil.rmtree(self.folder, ignore_errors=True)
        command = ("git", "ls-files", "-z", "-co", "--exclude-standard")
        listed = subprocess.run(
            command, cwd=paths.CHECKOUT, check=True, capture_output=True
        )
        for name in filter(None, listed.stdout.decode().split("\0")):
            source, target = paths.CHECKOUT / name, self.folder / name
            if source.exists():  # else it was deleted, and git is not told yet
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)
        # The guest's image is there, and need not be built again.
        (self.folder / ".testbed").symlink_to(paths.CHECKOUT / ".testbed")

    def environment(self) -> dict[str, str]:
        """Return the environment in which Python imports this copy."""
        return {
            **os.environ,
            "PYTHONPATH": str(self.folder),
            # Python takes a file of the same second and size for unchanged.
            "PYTHONDONTWRITEBYTECODE": "1",
        }
