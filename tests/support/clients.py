# SPDX-License-Identifier: Apache-2.0

"""Clusters and clients of their disks, for tests of who holds what."""

import concurrent.futures
import json
import subprocess
import sys

from nova_rbd_backend.ceph import cluster
from nova_rbd_backend.settings import ClusterSettings
from tests.support import client_child
from tests.testbed.ceph import pools as pools_

_CHILD = (sys.executable, "-m", client_child.__name__)


def connect(
    ceph, user="nova", connect_timeout_seconds=10, operation_timeout_seconds=60
):
    """Return the cluster as a user of it; other limits, other connection."""
    settings = ClusterSettings(
        str(ceph.conf),
        user,
        connect_timeout_seconds,
        operation_timeout_seconds,
    )
    return cluster.connect(settings)


def make_user(ceph, name, **caps):
    """Make a Ceph user; its keyring is where ceph.conf looks for it."""
    with ceph.admin() as admin:
        (user,) = pools_.command(
            admin,
            "auth get-or-create",
            entity=f"client.{name}",
            caps=[text for pair in caps.items() for text in pair],
        )
    ceph.keyring(name).write_text(f"[client.{name}]\n\tkey = {user['key']}\n")
    return name


def set_quota(admin, pool, objects):
    """Zero: none."""
    pools_.command(
        admin,
        "osd pool set-quota",
        pool=str(pool),
        field="max_objects",
        val=str(objects),
    )


def is_full(admin, pool):
    pools = pools_.command(admin, "osd pool ls", detail="detail")
    (found,) = [p for p in pools if p["pool_name"] == str(pool)]
    return "full_quota" in found["flags_names"]


def address(here):
    """How the cluster calls this process's connection to it."""
    return here.connection().handle.get_addrs()


def in_threads(work, items, at_once=20):
    """Do the work with each item; what it returned, or the first failure."""
    with concurrent.futures.ThreadPoolExecutor(at_once) as threads:
        return list(threads.map(work, items))


class Client:
    """A process that has the image open for writing."""

    def __init__(self, ceph, image):
        self._process = subprocess.Popen(
            [*_CHILD, str(ceph.conf), "vms", image],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.client_id = int(self._process.stdout.readline())

    def write(self, text):
        self._process.stdin.write(f"write {text}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def signal(self, number):
        self._process.send_signal(number)

    def kill(self):
        self._process.kill()
        self._process.wait(10)

    def close(self):
        self._process.stdin.close()
        assert self._process.wait(30) == 0


def blocklist(ceph):
    """Address -> when it ends, as the monitors show it."""
    with ceph.admin() as admin:
        command = {"prefix": "osd blocklist ls", "format": "json"}
        _, answer, _ = admin.mon_command(json.dumps(command), b"")
    entries, _ = json.JSONDecoder().raw_decode(answer.decode())
    return {entry["addr"]: entry["until"] for entry in entries}


def holders(vms, image):
    with vms.open(image) as disk:
        return disk.clients()
