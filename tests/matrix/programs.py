# SPDX-License-Identifier: Apache-2.0

"""Ceph's programs of another Debian, for a cluster of another release.

Each is a small script that starts the program in that Debian's root, with the
caller's /tmp, where throwaway clusters are, and its network. The program takes
the script's place, so that it can be signalled by its PID.
"""

import pathlib
import shlex

NAMES = ("ceph-authtool", "ceph-mgr", "ceph-mon", "ceph-osd", "monmaptool")
SHARED = ("dev", "proc", "sys", "tmp")


def write(folder: pathlib.Path, root: pathlib.Path) -> None:
    """Write the scripts for the Debian in root."""
    folder.mkdir(exist_ok=True)
    mounts = [
        shlex.join(("mount", "--rbind", f"/{name}", str(root / name)))
        for name in SHARED
    ]
    for name in NAMES:
        inner = [*mounts, f'exec chroot {shlex.quote(str(root))} {name} "$@"']
        outer = ["exec", "unshare", "--mount", "--propagation", "private"]
        outer += ["/bin/bash", "-ec", "\n".join(inner), name]
        script = folder / name
        script.write_text(f'#!/bin/bash\n{shlex.join(outer)} "$@"\n')
        script.chmod(0o755)
