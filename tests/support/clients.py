# SPDX-License-Identifier: Apache-2.0

"""Connections to a cluster, its users and quotas, and clients of its disks."""

import concurrent.futures
import contextlib
import json
import signal
import struct
import subprocess
import sys
import threading

from nova_rbd_backend.ceph import cluster
from nova_rbd_backend.settings import ClusterSettings
from tests.support import client_child
from tests.testbed.ceph import pools as pools_
from tests.testbed.process import freeze, wait_for

_CHILD = (sys.executable, "-m", client_child.__name__)
_WATCHES = []


def connect(
    ceph, user="nova", connect_timeout_seconds=10, operation_timeout_seconds=60
):
    """Return the cluster as seen by a user.

    Calls with the same user and limits share one connection.
    """
    settings = ClusterSettings(
        str(ceph.conf),
        user,
        connect_timeout_seconds,
        operation_timeout_seconds,
    )
    return cluster.connect(settings)


def make_user(ceph, name, **caps):
    """Create a Ceph user, and its keyring where ceph.conf looks for it."""
    with ceph.admin() as admin:
        (user,) = pools_.command(
            admin,
            "auth get-or-create",
            entity=f"client.{name}",
            caps=[text for pair in caps.items() for text in pair],
        )
    ceph.keyring(name).write_text(f"[client.{name}]\n\tkey = {user['key']}\n")
    return name


def set_quota(admin, pool, value, field="max_objects"):
    """Set a quota of a pool; 0 removes the quota.

    :param field: ``max_objects`` or ``max_bytes``
    """
    pools_.command(
        admin,
        "osd pool set-quota",
        pool=str(pool),
        field=field,
        val=str(value),
    )


def is_full(admin, pool):
    """Return whether a pool is full because of its quota."""
    pools = pools_.command(admin, "osd pool ls", detail="detail")
    (found,) = [p for p in pools if p["pool_name"] == str(pool)]
    return "full_quota" in found["flags_names"]


@contextlib.contextmanager
def over_its_quota(admin, pool):
    """Make a pool full by a quota of one object; lift the quota afterwards."""
    set_quota(admin, pool, 1)
    try:
        wait_for("the quota is in force", lambda: is_full(admin, pool), 30)
        yield
    finally:
        set_quota(admin, pool, 0)
        wait_for("the quota is gone", lambda: not is_full(admin, pool), 30)
        catch_up(admin)


def catch_up(admin):
    """Have this process's connections to a cluster read its newest map."""
    fsid = admin.get_fsid()
    for known in cluster._CLUSTERS.values():
        if known._connection and known.fsid() == fsid:
            known.catch_up()


@contextlib.contextmanager
def inactive(admin, pool):
    """Make all PGs of a pool inactive: OSDs leave requests unanswered.

    The pool wants more copies than there are OSDs, and no I/O with fewer.
    """
    _set_copies(admin, pool, ("size", "min_size"), 4)
    try:
        yield
    finally:
        _set_copies(admin, pool, ("min_size", "size"), 1)


def _set_copies(admin, pool, variables, number):
    for var in variables:
        pools_.command(
            admin,
            "osd pool set",
            pool=str(pool),
            var=var,
            val=str(number),
            yes_i_really_mean_it=True,
        )


def address(here):
    """Return the address by which the cluster knows our connection to it."""
    return here.connection().handle.get_addrs()


def in_threads(work, items, at_once=20):
    """Call work(item) for each item in threads, and return the results.

    Raises the first error that any of the calls raised.
    """
    with concurrent.futures.ThreadPoolExecutor(at_once) as threads:
        return list(threads.map(work, items))


class Client:
    """A process that has an image of pool vms open for writing."""

    def __init__(self, ceph, image):
        self._process = subprocess.Popen(
            [*_CHILD, str(ceph.conf), "vms", image],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        client_id, self.address = self._process.stdout.readline().split()
        self.client_id = int(client_id)

    def write(self, text):
        self._process.stdin.write(f"write {text}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def signal(self, number):
        if number == signal.SIGSTOP:
            freeze(self._process.pid)
        else:
            self._process.send_signal(number)

    def kill(self):
        self._process.kill()
        self._process.wait(10)

    def close(self):
        self._process.stdin.close()
        assert self._process.wait(30) == 0


def lock_request(cookie):
    """Return cls_lock_lock_op as librbd sends it (ManagedLock, 16.2)."""
    body = _text("rbd_lock") + b"\x01" + _text(cookie) + _text("internal")
    body += _text("") + struct.pack("<IIB", 0, 0, 0)
    return struct.pack("<BBI", 1, 1, len(body)) + body


def _text(value):
    return struct.pack("<I", len(value)) + value.encode()


@contextlib.contextmanager
def lock_of_a_dead_client(ceph, image_id):
    """Lock an image of pool vms without a watch, as a dead client leaves it.

    :returns: the client's id
    """
    header = f"rbd_header.{image_id}"
    with ceph.admin() as admin, admin.open_ioctx("vms") as ioctx:
        ioctx.execute(header, "lock", "lock", lock_request("auto 1"))
        yield admin.get_instance_id()


def watch(ioctx, key, callback):
    """Watch an object; returns python-rados' Watch.

    It is kept until the process ends. A garbage collection that finds it in a
    cycle, as a traceback is, crashes the process, closed or not
    (python-rados 16.2.15).
    """
    _WATCHES.append(ioctx.watch(key, callback))
    return _WATCHES[-1]


@contextlib.contextmanager
def lock_of_a_hung_client(ceph, image_id, answers=False):
    """Lock an image of pool vms as a client whose threads hang.

    It watches the image, and lets questions wait.

    :param answers: it answers whether it lives, but keeps the lock
    :returns: the client's id, and a function that ends lock and watch
    """
    header, released = f"rbd_header.{image_id}", threading.Event()

    def answer(*_):
        if not answers:
            released.wait(60)
        return ""

    with ceph.admin() as admin, admin.open_ioctx("vms") as ioctx:
        own = watch(ioctx, header, answer)
        cookie = f"auto {own.get_id()}"
        ioctx.execute(header, "lock", "lock", lock_request(cookie))

        def release():
            if not released.is_set():
                ioctx.execute(header, "lock", "unlock", _unlock(cookie))
                released.set()
                own.close()

        try:
            yield admin.get_instance_id(), release
        finally:
            release()


def _unlock(cookie):
    """Return cls_lock_unlock_op as librbd sends it (ManagedLock, 16.2)."""
    body = _text("rbd_lock") + _text(cookie)
    return struct.pack("<BBI", 1, 1, len(body)) + body


def blocklist(ceph):
    """Return when each address on the blocklist expires, by address."""
    with ceph.admin() as admin:
        command = {"prefix": "osd blocklist ls", "format": "json"}
        _, answer, _ = admin.mon_command(json.dumps(command), b"")
    entries, _ = json.JSONDecoder().raw_decode(answer.decode())
    return {entry["addr"]: entry["until"] for entry in entries}


def holders(vms, image):
    with vms.open(image) as disk:
        return disk.clients()
