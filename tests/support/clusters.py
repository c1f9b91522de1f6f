# SPDX-License-Identifier: Apache-2.0

"""Throwaway clusters that leave no connection behind in this process."""

import contextlib
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

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
    # A client looks for its monitor for ever, and knocks at the ports that a
    # later cluster takes over.
    for settings, known in cluster._CLUSTERS.items():
        if settings.conf_file == str(ceph.conf) and known._connection:
            known.drop(known._connection)


def make_osds_read_objects_again(ceph: CephCluster) -> None:
    """Drop what the OSDs keep in memory of the objects of pool vms.

    A client that dies in the moment it registers a watch leaves one without
    a timer, so that it never lapses: seen in 16.2.15, blocklisting does not
    end it. Once the object is read from disk again the timer runs. An OSD
    keeps 64 objects for each PG (osd_pg_object_context_cache_count), so a
    pool in use gets there by itself.
    """
    with ceph.admin() as admin:
        ioctx = admin.open_ioctx("vms")
        keys = [f"not-an-image.{number}" for number in range(1500)]
        writes = [ioctx.aio_write_full(key, b"x") for key in keys]
        for write in writes:
            write.wait_for_complete()
        for key in keys:
            ioctx.remove_object(key)
