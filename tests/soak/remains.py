# SPDX-License-Identifier: Apache-2.0

"""What is left in Ceph and on the hosts after all was deleted."""

import contextlib
import subprocess
from collections.abc import Iterator

import rados
import rbd

from nova_rbd_backend import names
from nova_rbd_backend.ceph import lease
from nova_rbd_backend.storage import journal
from tests.testbed.ceph import rbd_view
from tests.testbed.host.compute_host import ComputeHost
from tests.testbed.whole import Testbed

POOLS = ("vms", "snapshots")
VIRSH_SECONDS = 30


def in_ceph(testbed: Testbed) -> list[str]:
    """Name all that is left in the pools, but for bases nobody has open."""
    found = []
    for pool in POOLS:
        found += [
            f"{pool}: {name}" for name in rbd_view.left(testbed.cluster, pool)
        ]
    with testbed.cluster.admin() as admin:
        for pool in POOLS:
            with admin.open_ioctx(pool) as ioctx:
                found += [f"{pool}: {each}" for each in of_pool(ioctx)]
    return found


def of_pool(ioctx: rados.Ioctx) -> Iterator[str]:
    for key, value in _entries(ioctx):
        yield f"journal entry {key} {value}"
    yield from (f"lease {name}" for name in _leases(ioctx))
    for name in rbd.RBD().list(ioctx):
        with (
            contextlib.suppress(rbd.ImageNotFound),
            rbd_view.opened(ioctx, name) as image,
        ):
            if lockers := image.list_lockers():
                yield f"{name} is locked by {lockers['lockers']}"
            if clients := list(image.watchers_list()):
                yield f"{name} is open at {clients}"


def _entries(ioctx: rados.Ioctx) -> list[tuple[str, str]]:
    with rados.ReadOpCtx() as operation:
        found, _ = ioctx.get_omap_vals(operation, "", "", 1000)
        try:
            ioctx.operate_read_op(operation, journal.OBJECT)
        except rados.ObjectNotFound:
            return []
        return [(key, value.decode()) for key, value in found]


def _leases(ioctx: rados.Ioctx) -> list[str]:
    """Names of the bases whose making somebody still has a right to.

    The record of a right that ended by itself stays for a while.
    """
    try:
        records = [key for key, _ in ioctx.get_xattrs(lease.OBJECT)]
    except rados.ObjectNotFound:
        return []
    found = [each.removeprefix("lock.") for each in records]
    return [n for n in found if names.is_base(n) and _is_held(ioctx, n)]


def _is_held(ioctx: rados.Ioctx, name: str) -> bool:
    try:
        ioctx.lock_exclusive(lease.OBJECT, name, "soak", "", 1)
    except rados.ObjectBusy:
        return True
    ioctx.unlock(lease.OBJECT, name, "soak")
    return False


def on_hosts(testbed: Testbed) -> list[str]:
    """Name the guests, domains and folders that are left on the hosts."""
    found = []
    for host in testbed.hosts:
        found += [f"{host.name}: QEMU {pid}" for pid in host.qemu_pids()]
        found += [f"{host.name}: domain {each}" for each in _domains(host)]
        folders = sorted(testbed.instance_folders(host))
        found += [f"{host.name}: folder {name}" for name in folders]
    return found


def _domains(host: ComputeHost) -> list[str]:
    try:
        done = host.run(
            ["virsh", "list", "--all", "--uuid"],
            capture_output=True,
            text=True,
            check=True,
            timeout=VIRSH_SECONDS,
        )
    except subprocess.SubprocessError as error:
        return [f"unknown: {error}"]
    return done.stdout.split()
