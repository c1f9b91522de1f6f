# SPDX-License-Identifier: Apache-2.0

"""What may wait is done before the guest is frozen."""

import uuid

from nova_rbd_backend.ceph.holders import Holders
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage.snapshots import make as snapshots
from tests.support.clients import connect

MIB = 1 << 20


def test_snap_asks_nobody_and_opens_no_connection(
    ceph, pool, name, monkeypatch
):
    pool.create(name, MIB)
    # Connections that no other test uses.
    fresh = Pool(connect(ceph, operation_timeout_seconds=51), "vms")
    attempt = snapshots.begin(fresh, fresh, name, str(uuid.uuid4()))
    connection = fresh.cluster.for_images_in_use._connection
    assert connection is not None
    with monkeypatch.context() as patch:
        for question in ("locks", "ask_watchers", "ask_mirrors"):
            patch.delattr(Holders, question)
        snapshots.snap(attempt)
    with pool.open(name) as disk:
        assert [snap.name for snap in disk.snaps()] == [attempt.source.snap]
    assert fresh.cluster.for_images_in_use._connection is connection
    snapshots.undo(fresh, attempt)
    pool.remove(name)
