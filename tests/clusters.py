# SPDX-License-Identifier: Apache-2.0

"""Throwaway clusters that leave no connection behind in this process."""

import contextlib
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

from nova_rbd_backend.storage import cluster
from tests.testbed.ceph import CephCluster


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
    for settings, known in cluster._clusters.items():
        if settings.conf_file == str(ceph.conf) and known._connection:
            known.drop(known._connection)
