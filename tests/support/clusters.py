# SPDX-License-Identifier: Apache-2.0

"""Throwaway clusters that leave no connection behind in this process."""

import contextlib
import json
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import rados
import rbd

from nova_rbd_backend.ceph import cluster
from tests.testbed.ceph.cluster import CephCluster
from tests.testbed.process import TestbedError, wait_for

# An OSD looks for ended watches now and then.
_LATE_SECONDS = 10


@contextlib.contextmanager
def started_ceph(**how: Any) -> Iterator[CephCluster]:
    """Start a cluster; by default with Ceph's own watch timeout, 30 s."""
    with tempfile.TemporaryDirectory(prefix="ceph-", dir="/tmp") as folder:
        ceph = CephCluster(pathlib.Path(folder) / "c", **how)
        try:
            ceph.start()
            yield ceph
        finally:
            _disconnect(ceph)
            ceph.destroy()


def _disconnect(ceph: CephCluster) -> None:
    # librados reconnects for ever, and would try the ports of this cluster
    # when a later one has taken them over.
    for settings, known in cluster._CLUSTERS.items():
        if settings.conf_file == str(ceph.conf) and known._connection:
            known.drop(known._connection)


def client_requests(ceph: CephCluster, admin: rados.Rados) -> int:
    """Return how many requests of clients the OSDs have answered so far."""
    request, count = json.dumps({"prefix": "perf dump", "format": "json"}), 0
    for number in range(ceph.settings.osds):
        code, answer, why = admin.osd_command(number, request, b"")
        assert code == 0, why
        count += json.loads(answer)["osd"]["op"]
    return count


def wait_for_dead_clients(ceph: CephCluster, pool: str) -> None:
    """Wait until no image of a pool has a watcher.

    The watch of a dead client lasts for the cluster's watch timeout. Until
    then nobody can remove the image, and afterwards everybody can.
    """
    limit = ceph.settings.watch_timeout_seconds + _LATE_SECONDS
    with ceph.admin() as admin, admin.open_ioctx(pool) as ioctx:

        def unwatched() -> bool:
            return not any(_watched(ioctx, each) for each in _image_ids(ioctx))

        what = f"the watches on images of {pool} end"
        try:
            wait_for(what, unwatched, limit, 0.5)
        except TestbedError:
            make_osds_read_objects_again(ceph)
            wait_for(what, unwatched, limit, 0.5)


def _image_ids(ioctx: rados.Ioctx) -> list[str]:
    """Return the ids of all images, whatever their names say."""
    keys = (entry.key for entry in ioctx.list_objects())
    header = "rbd_header."
    return [key.removeprefix(header) for key in keys if key.startswith(header)]


def _watched(ioctx: rados.Ioctx, image_id: str) -> bool:
    try:
        with rbd.Image(ioctx, image_id=image_id, read_only=True) as image:
            return bool(list(image.watchers_list()))
    except rbd.ImageNotFound:  # removed, except for what a snap still keeps
        return False


def make_osds_read_objects_again(ceph: CephCluster) -> None:
    """Make the OSDs forget the objects of pool vms that they have in memory.

    A client that dies just as it registers a watch may leave a watch without
    a timer, which never ends. This was seen in 16.2.15; blocklisting does not
    end the watch either. The timer starts when the OSD reads the object from
    disk again. As an OSD keeps 64 objects of each PG in memory
    (osd_pg_object_context_cache_count), this happens by itself in a pool that
    is in use.
    """
    with ceph.admin() as admin:
        ioctx = admin.open_ioctx("vms")
        keys = [f"not-an-image.{number}" for number in range(1500)]
        writes = [ioctx.aio_write_full(key, b"x") for key in keys]
        for write in writes:
            write.wait_for_complete()
        for key in keys:
            ioctx.remove_object(key)
