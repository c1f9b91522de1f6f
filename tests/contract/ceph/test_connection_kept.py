# SPDX-License-Identifier: Apache-2.0

"""A connection is closed when no call uses it any more, and not earlier."""

import gc
import threading
import weakref

import pytest
import rados

from nova_rbd_backend import errors
from nova_rbd_backend.ceph.pool import Pool
from tests.support.clients import connect
from tests.testbed.process import wait_for


def test_call_that_was_given_up_keeps_its_connection(ceph):
    """It is still in librados, where a shutdown would crash the process."""
    cluster = connect(
        ceph, connect_timeout_seconds=18, operation_timeout_seconds=1
    )
    connection = cluster.connection()
    answer = threading.Event()
    with pytest.raises(rados.OSError):
        connection.limited(lambda: answer.wait(60))
    cluster.drop(connection)
    alive = weakref.ref(connection)
    del connection
    gc.collect()
    assert alive() is not None
    answer.set()
    wait_for("the call lets it go", lambda: alive() is None, 10, 0.02)


def test_close_that_does_not_end(ceph, name):
    """The image is left to its thread, and the next use connects anew."""
    cluster = connect(
        ceph, connect_timeout_seconds=19, operation_timeout_seconds=1
    )
    pool, closed = Pool(cluster, "vms"), threading.Event()
    pool.create(name, 1 << 20)
    connection = cluster.connection()

    class Hanging:
        def close(self):
            closed.wait(60)

    with pytest.raises(errors.OperationTimedOut):
        pool._close(Hanging(), connection, name, read_only=False)
    assert not cluster.uses(connection)
    alive = weakref.ref(connection)
    del connection
    gc.collect()
    assert alive() is not None
    with pool.open(name, read_only=False) as disk:
        disk.write(b"data", 0)
    closed.set()
    wait_for("the call lets it go", lambda: alive() is None, 10, 0.02)


@pytest.fixture
def no_garbage_collection():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_errors_that_keep_their_connections(ceph, no_garbage_collection):
    """As in a nova-compute that asks a pool without an answer all day."""
    cluster = connect(
        ceph, connect_timeout_seconds=20, operation_timeout_seconds=1
    )
    alive = []
    for _ in range(8):
        connection = cluster.connection()
        alive.append(weakref.ref(connection))
        kept = []
        try:
            with cluster.reach("try", pool="vms"):
                raise rados.TimedOut("no answer", errno=110)
        except errors.OperationTimedOut as error:
            kept += [error, connection, kept]
        del connection, kept
    assert sum(each() is not None for each in alive) <= 3
    assert all(each() is None for each in alive[:4])
