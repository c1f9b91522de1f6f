# SPDX-License-Identifier: Apache-2.0

"""Throwaway clusters that leave no connection behind in this process."""

import contextlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

import rados
import rbd

from nova_rbd_backend.ceph import cluster, lease
from tests.testbed.ceph import rbd_view
from tests.testbed.ceph.cluster import CephCluster
from tests.testbed.ceph.pools import REPLICATED_POOLS, command
from tests.testbed.process import TestbedError, wait_for

# An OSD looks for ended watches now and then.
_LATE_SECONDS = 10
# For watches that do not end by themselves. One try did not always help on a
# busy machine.
_TRIES = 3
# Names a folder whose clusters outlive a run of pytest, so that the next run
# need not start its own.
KEPT = "NOVA_RBD_KEPT_CLUSTERS"
# librbd's own, which it would not make anew.
OBJECTS_OF_POOLS = {"rbd_info", "rbd_namespace"}
#: Those that this process has started and not ended.
running: list[CephCluster] = []


@contextlib.contextmanager
def started_ceph(**how: Any) -> Iterator[CephCluster]:
    """Start a cluster; by default with Ceph's own watch timeout, 30 s."""
    with tempfile.TemporaryDirectory(prefix="ceph-", dir="/tmp") as folder:
        ceph = CephCluster(pathlib.Path(folder) / "c", **how)
        with contextlib.ExitStack() as stack:
            stack.callback(ceph.destroy)
            ceph.start()
            stack.callback(disconnect, ceph)
            stack.enter_context(_listed(ceph))
            yield ceph


@contextlib.contextmanager
def shared_ceph(**how: Any) -> Iterator[CephCluster]:
    """Give the cluster that most tests share, which none of them breaks."""
    kept = os.environ.get(KEPT)
    if not kept:
        with started_ceph(**how) as ceph:
            yield ceph
        return
    name = "-".join(f"{word}-{value}" for word, value in how.items())
    folder = pathlib.Path(kept) / (name or "default")
    folder.parent.mkdir(exist_ok=True)
    ceph = CephCluster(folder, **how)
    ceph.start()
    try:
        with _listed(ceph):
            yield ceph
    finally:
        disconnect(ceph)


@contextlib.contextmanager
def _listed(ceph: CephCluster) -> Iterator[None]:
    running.append(ceph)
    try:
        yield
    finally:
        running.remove(ceph)


def empty_kept(folder: pathlib.Path) -> None:
    """Remove all that the tests have left in the clusters of a folder.

    Clusters that don't do what they are told are removed.
    """
    for ceph in _kept(folder):
        try:
            ceph.start()
            with ceph.admin() as admin:
                command(admin, "osd blocklist clear")
                for pool in REPLICATED_POOLS:
                    empty_pool(admin, pool)
        except Exception:
            ceph.destroy()


def end_kept(folder: pathlib.Path) -> None:
    """Stop and remove the clusters of a folder."""
    for ceph in _kept(folder):
        ceph.destroy()
    shutil.rmtree(folder, ignore_errors=True)


def _kept(folder: pathlib.Path) -> list[CephCluster]:
    found = sorted(folder.iterdir()) if folder.exists() else []
    return [CephCluster(path) for path in found]


def empty_pool(admin: rados.Rados, pool: str) -> None:
    """Remove all objects of a pool, in all namespaces."""
    with admin.open_ioctx(pool) as ioctx:
        ioctx.set_namespace(rados.LIBRADOS_ALL_NSPACES)
        found = [(each.nspace, each.key) for each in ioctx.list_objects()]
        for namespace, key in found:
            if key not in OBJECTS_OF_POOLS:
                ioctx.set_namespace(namespace)
                ioctx.remove_object(key)


def end_periods(admin: rados.Rados, pool: str) -> None:
    """Take the turns from all hosts, as the end of their periods does."""
    with (
        admin.open_ioctx(pool) as ioctx,
        contextlib.suppress(rados.ObjectNotFound),
    ):
        ioctx.remove_object(lease.OBJECT)


def disconnect(ceph: CephCluster) -> None:
    """Give up this process's connections to a cluster."""
    # librados reconnects for ever, and would try the ports of this cluster
    # when a later one has taken them over.
    for settings, known in cluster._CLUSTERS.items():
        if settings.conf_file == str(ceph.conf):
            for each in (known, known.for_images_in_use):
                if each._connection:
                    each.drop(each._connection)


def client_requests(
    ceph: CephCluster, admin: rados.Rados, which: str = "op"
) -> int:
    """Return how many requests of clients the OSDs have answered so far.

    :param which: an OSD's counter; ``op_w``: those that write
    """
    request, count = json.dumps({"prefix": "perf dump", "format": "json"}), 0
    for number in range(ceph.settings.osds):
        code, answer, why = admin.osd_command(number, request, b"")
        assert code == 0, why
        count += json.loads(answer)["osd"][which]
    return count


def wait_for_dead_clients(
    ceph: CephCluster, pool: str, namespaces: Iterable[str] = ("",)
) -> None:
    """Wait until no image in these namespaces of a pool has a watcher.

    The watch of a dead client lasts for the cluster's watch timeout. Until
    then nobody can remove the image, and afterwards everybody can.
    """
    limit = ceph.settings.watch_timeout_seconds + _LATE_SECONDS
    with ceph.admin() as admin, admin.open_ioctx(pool) as ioctx:

        def unwatched() -> bool:
            return not any(map(watched_in, namespaces))

        def watched_in(namespace: str) -> bool:
            ioctx.set_namespace(namespace)
            return any(_watched(ioctx, each) for each in _image_ids(ioctx))

        what = f"the watches on images of {pool} end"
        for _ in range(_TRIES):
            with contextlib.suppress(TestbedError):
                wait_for(what, unwatched, limit, 0.5)
                return
            make_osds_read_objects_again(ceph, pool)
        wait_for(what, unwatched, limit, 0.5)


def _image_ids(ioctx: rados.Ioctx) -> list[str]:
    """Return the ids of all images, whatever their names say."""
    keys = (entry.key for entry in ioctx.list_objects())
    header = "rbd_header."
    return [key.removeprefix(header) for key in keys if key.startswith(header)]


def _watched(ioctx: rados.Ioctx, image_id: str) -> bool:
    try:
        with rbd_view.opened(ioctx, image_id=image_id) as image:
            return bool(list(image.watchers_list()))
    except rbd.ImageNotFound:  # removed, except for what a snap still keeps
        return False


def make_osds_read_objects_again(ceph: CephCluster, pool: str) -> None:
    """Make the OSDs forget the objects of a pool that they have in memory.

    A client that dies just as it registers a watch may leave a watch without
    a timer, which never ends. This was seen in 16.2.15; blocklisting does not
    end the watch either. The timer starts when the OSD reads the object from
    disk again. As an OSD keeps 64 objects of each PG in memory
    (osd_pg_object_context_cache_count), this happens by itself in a pool that
    is in use.
    """
    with ceph.admin() as admin:
        ioctx = admin.open_ioctx(pool)
        keys = [f"not-an-image.{number}" for number in range(1500)]
        writes = [ioctx.aio_write_full(key, b"x") for key in keys]
        for write in writes:
            write.wait_for_complete()
        for key in keys:
            ioctx.remove_object(key)
