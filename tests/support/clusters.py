# SPDX-License-Identifier: Apache-2.0

"""Throwaway clusters that leave no connection behind in this process."""

import contextlib
import json
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import rados

from nova_rbd_backend.ceph import cluster
from tests.testbed.ceph.cluster import CephCluster


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
