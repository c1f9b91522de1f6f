# SPDX-License-Identifier: Apache-2.0

"""Which clients hold a disk.

tests/functional/storage/test_fencing.py tests what is done to clients of other
processes.
"""

import pytest

from nova_rbd_backend import errors, notices
from nova_rbd_backend.ceph import layouts
from nova_rbd_backend.ceph.holders import Answer, Lock
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage import fencing
from tests.support.clients import connect, lock_request

MIB = 1 << 20


@pytest.fixture
def name(pool, name):
    """The name of a disk that exists."""
    pool.create(name, MIB)
    return name


def clients(pool, name):
    with pool.open(name) as disk:
        return disk.clients()


def test_ids_by_prefix(pool, instance, name):
    pool.create(f"{instance}_disk.swap", MIB)
    assert pool.directory.ids(f"{instance}_") == {
        disk: pool.directory.image_id(disk)
        for disk in (name, f"{instance}_disk.swap")
    }


def test_image_without_holders(pool, name):
    image_id = pool.directory.image_id(name)
    assert pool.holders.locks(image_id) == ()
    assert pool.holders.ask_watchers([image_id], 1) == {image_id: Answer()}
    assert clients(pool, name) == ()


def test_image_that_is_not_mirrored(pool, name):
    assert not pool.holders.is_mirrored(pool.directory.image_id(name))
    assert pool.holders.ask_mirrors(1) == Answer()


def test_no_such_image(pool):
    assert pool.holders.locks("no-id") == ()
    assert pool.holders.ask_watchers(["no-id"], 1) == {"no-id": Answer()}
    pool.holders.break_lock("no-id", Lock(1, "auto 1"))


def test_writer_is_a_holder(pool, name):
    own_id = pool.cluster.client_id()
    image_id = pool.directory.image_id(name)
    with pool.open(name, read_only=False) as disk:
        assert pool.holders.ask_watchers([image_id], 1) == {
            image_id: Answer(frozenset([own_id]))
        }
        disk.write(b"x", 0)
        disk.flush()
        (lock,) = pool.holders.locks(image_id)
        (client,) = clients(pool, name)
        assert client.client_id == lock.client_id == own_id
        assert client.lock_cookie == lock.cookie
        assert client.watches
    assert pool.holders.locks(image_id) == ()


def test_only_the_given_lock_is_broken(pool, name):
    image_id = pool.directory.image_id(name)
    with pool.open(name, read_only=False) as disk:
        disk.write(b"x", 0)
        disk.flush()
        (lock,) = pool.holders.locks(image_id)
        pool.holders.break_lock(
            image_id, Lock(lock.client_id, f"{lock.cookie}1")
        )
        pool.holders.break_lock(
            image_id, Lock(lock.client_id + 1, lock.cookie)
        )
        assert pool.holders.locks(image_id) == (lock,)


def test_lock_that_this_client_has_forgotten(ceph, pool, name):
    """Why a time-out ends the connection; see Cluster.reach.

    librbd gives up a close whose unlock is not answered, and forgets the lock.
    """
    pool = Pool(connect(ceph, connect_timeout_seconds=12), str(pool))
    image_id = pool.directory.image_id(name)
    with pool._access.reach("lock", image=image_id) as ioctx:
        key = layouts.header(image_id)
        ioctx.execute(key, "lock", "lock", lock_request("auto 1"))
    (lock,) = pool.holders.locks(image_id)
    assert lock.client_id == pool.cluster.client_id()
    with (
        pool.open(name, read_only=False) as disk,
        pytest.raises(errors.StorageFault),
    ):
        disk.write(b"x", 0)
    with pytest.raises(errors.DiskBusy):
        pool.trash.move(name)
    pool.cluster.drop(pool.cluster.connection())
    with fencing.fenced(pool, name) as disk:
        disk.write(b"x", 0)
    pool.trash.move(name)


def test_start_need_not_wait_if_nobody_holds_the_disks(
    ceph, pool, instance, name
):
    assert fencing.ready_for_start(pool, instance)
    there = Pool(connect(ceph, connect_timeout_seconds=11), str(pool))
    with there.open(name, read_only=False) as disk:
        assert not fencing.ready_for_start(pool, instance)
        assert fencing.ready_for_start(pool, instance, [f"{name}.other"])
        disk.write(b"x", 0)
        disk.flush()
        assert not fencing.ready_for_start(pool, instance)
        disk.write(b"y", 0)
        disk.flush()
    assert fencing.ready_for_start(pool, instance)


def test_own_client_is_never_fenced(pool, instance, name):
    with (
        notices.collected() as found,
        pool.open(name, read_only=False) as disk,
    ):
        disk.write(b"x", 0)
        disk.flush()
        before = clients(pool, name)
        assert fencing.fence(pool, pool.directory.ids(f"{instance}_")) == {}
        fencing.fence_for_start(pool, instance)
        assert clients(pool, name) == before
        disk.write(b"y", 0)
        disk.flush()
    assert found == []
