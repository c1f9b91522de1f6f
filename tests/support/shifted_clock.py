# SPDX-License-Identifier: Apache-2.0

"""Flows in a process whose clock is ahead of the cluster's, or behind it.

Run as ``python -m tests.support.shifted_clock FLOW CONF USER ARGUMENT...``.
"""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

from nova_rbd_backend.ceph import cluster
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.settings import ClusterSettings
from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.disks import delete as delete_
from nova_rbd_backend.storage.images import purge as purge_
from nova_rbd_backend.storage.snapshots import detach
from nova_rbd_backend.storage.survey import orphans

_SOURCE = pathlib.Path(__file__).with_suffix(".c")
_COMPILE = ("gcc", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")
_LIMIT_SECONDS = 60


class Clock:
    """A clock that is wrong.

    :param folder: for the library that shifts the clock
    :param ahead_seconds: negative if the clock is behind
    """

    def __init__(self, folder, ahead_seconds):
        library = folder / "shifted_clock.so"
        subprocess.run([*_COMPILE, "-o", library, _SOURCE], check=True)
        self._shifted = {
            "LD_PRELOAD": str(library),
            "CLOCK_AHEAD_SECONDS": str(ahead_seconds),
        }

    def run(self, flow, ceph, *arguments, user="nova"):
        """Run one of FLOWS in pool vms, and return its answer."""
        done = subprocess.run(
            [
                *(sys.executable, "-m", __name__),
                *(flow, str(ceph.conf), user, *map(str, arguments)),
            ],
            env={**os.environ, **self._shifted},
            stdout=subprocess.PIPE,
            text=True,
            timeout=_LIMIT_SECONDS,
            check=True,
        )
        return json.loads(done.stdout)


def purge(pool):
    """Return the fields of the report."""
    return dataclasses.asdict(purge_.purge(pool))


def delete(pool, instance, retention_seconds):
    """Delete the disks of an instance, and return their names."""
    seconds = int(retention_seconds)
    report = delete_.delete_disks(pool, instance, retention_seconds=seconds)
    return report.deleted


def judge(pool, instance, older_than_seconds):
    """Return the states of an instance's disks that no instance owns."""
    images = orphans.content(pool).disks[instance]
    found = orphans.judge(pool, images, float(older_than_seconds))
    return [each.state for each in found]


def abandoned(pool):
    """Return the names of the snapshots whose makers count as dead."""
    return [
        entry.image
        for entry in detach.abandoned(pool, journal.detachments(pool))
    ]


FLOWS = {
    "abandoned": abandoned,
    "delete": delete,
    "judge": judge,
    "purge": purge,
}


def main():
    flow, conf, user, *arguments = sys.argv[1:]
    settings = ClusterSettings(conf, user, 10, 30)
    pool = Pool(cluster.connect(settings), "vms")
    print(json.dumps(FLOWS[flow](pool, *arguments)))


if __name__ == "__main__":
    main()
