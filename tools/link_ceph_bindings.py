# SPDX-License-Identifier: Apache-2.0

"""Make the distribution's rados and rbd importable in this environment.

They are not on PyPI, and --system-site-packages would let in every other
Python package of the machine. Run it with the environment's own Python, which
has to be the version that the distribution built them for.
"""

import importlib.util
import pathlib
import subprocess
import sys
import sysconfig

SYSTEM_PYTHON = "/usr/bin/python3"
FIND = (
    "import importlib.util, sys; "
    "print(importlib.util.find_spec(sys.argv[1]).origin)"
)


def main() -> int:
    """Link the modules that are missing; return 1 if they can't be loaded."""
    if sys.prefix == sys.base_prefix:
        print("not a virtual environment: run this with the python of one")
        return 1
    site = pathlib.Path(sysconfig.get_path("platlib"))
    for name in ("rados", "rbd"):
        if importlib.util.find_spec(name) is None:
            found = subprocess.run(  # noqa: S603, all words are ours
                [SYSTEM_PYTHON, "-c", FIND, name],
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            if found.returncode:
                print(f"{SYSTEM_PYTHON} has no {name}: install python3-{name}")
                return 1
            library = pathlib.Path(found.stdout.strip())
            (site / library.name).symlink_to(library)
    importlib.invalidate_caches()
    if importlib.util.find_spec("rbd") is None:
        print(f"{sys.version} cannot load the modules of {SYSTEM_PYTHON}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
