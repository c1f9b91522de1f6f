# SPDX-License-Identifier: Apache-2.0

"""Another disk gets a name while librbd moves its former owner to the trash.

librbd looks the name up once, and may then wait for the lock of that image. It
moves this image in any case, but frees the name whoever has it (16.2.15).
"""

from concurrent.futures import ThreadPoolExecutor

import pytest

from nova_rbd_backend.ceph import layouts
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage import fencing, journal
from nova_rbd_backend.storage.disks import delete, provision
from nova_rbd_backend.storage.images import discard, purge
from tests.support.blank_disks import blank_disk
from tests.support.clients import connect, lock_of_a_hung_client
from tests.testbed.process import wait_for

MIB = 1 << 20


@pytest.fixture
def moved_late(ceph, pool, name):
    """Return a function that moves a disk when its name is another one's.

    The function returns the ids of the two disks.
    """
    other = Pool(connect(ceph, operation_timeout_seconds=50), "vms")
    move = pool.trash.move

    def move_late(moved, seconds, old_id):
        def opened():
            return len(fencing.clients(other, old_id)) == 2

        pool.trash.move = move
        with (
            ThreadPoolExecutor() as threads,
            lock_of_a_hung_client(ceph, old_id) as (_, release),
        ):
            moving = threads.submit(move, moved, seconds, old_id)
            wait_for("librbd has looked the name up", opened, 30)
            other.directory.publish(moved, old_id, f"{moved}.old")
            other.create(moved, MIB)
            release()
            moving.result(60)

    def discarded():
        pool.create(name, MIB)
        old_id = pool.directory.image_id(name)
        pool.trash.move = move_late
        discard.discard(pool, name, image_id=old_id)
        return old_id, other.directory.listed_id(name)

    return discarded


def test_other_disk_keeps_its_name(pool, instance, name, moved_late):
    old_id, new_id = moved_late()
    assert new_id not in (None, old_id)
    assert pool.directory.image_id(name) == new_id
    # The disk that was renamed meanwhile stays, too.
    assert name not in purge.purge(pool).purged
    assert pool.trash.get(old_id) is None
    assert pool.directory.image_id(f"{name}.old") == old_id
    assert journal.deletion(pool, old_id) is None
    delete.delete_disks(pool, instance)


def test_name_is_given_back_by_whoever_looks_for_the_disk(
    pool, instance, name
):
    """The process that had freed the name died."""
    pool.create(name, MIB)
    image_id = pool.directory.image_id(name)
    pool.directory.remove_id(name, image_id)
    assert provision.whole_image_id(pool, name) == image_id
    assert not blank_disk(pool, name, MIB).created
    assert pool.directory.image_id(name) == image_id
    delete.delete_disks(pool, instance)


def test_disk_that_is_moved_to_the_trash_gets_no_name(pool, name):
    """Nor does a disk of which only the name is left."""
    pool.create(name, MIB)
    image_id = pool.directory.image_id(name)
    pool.trash.move(name)
    listed = layouts.listed(name, image_id)
    with pool._access.reach("list", image=name) as ioctx:
        ioctx.execute("rbd_directory", "rbd", "dir_add_image", listed)
    assert not provision.is_whole(pool, name)
    pool.trash.remove(image_id)
    assert not provision.is_whole(pool, name)
    assert not pool.directory.exists(name)
    pool.directory.remove_listed(name, image_id)
