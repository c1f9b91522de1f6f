# SPDX-License-Identifier: Apache-2.0

"""No call waits for ever for a lock whose owner watches, but does not act.

This is how a client looks whose threads hang: librados keeps up its watch.
"""

import dataclasses
import datetime
import threading
import time

import pytest

from nova_rbd_backend import errors
from nova_rbd_backend.ceph import cluster
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.image_options import ImageOptions
from nova_rbd_backend.storage.images import source_snap
from tests.support.clients import (
    blocklist,
    connect,
    holders,
    lock_of_a_hung_client,
)
from tests.testbed.process import wait_for

MIB = 1 << 20
SECONDS = 2
# Longer than the monitors list a client by default.
LISTED_SECONDS = 30 * 24 * 3600


@pytest.fixture
def hasty(ceph):
    """The pool of the disks, over connections that no other test uses."""
    usual = connect(ceph, operation_timeout_seconds=SECONDS).settings
    settings = dataclasses.replace(usual, blocklist_seconds=LISTED_SECONDS)
    return Pool(cluster.connect(settings), "vms")


@pytest.fixture
def owner(ceph, hasty, name):
    """A client that has the lock of a disk, and lets questions wait."""
    hasty.create(name, 8 * MIB)
    image_id = hasty.directory.image_id(name)
    with lock_of_a_hung_client(ceph, image_id) as (client_id, _):
        yield client_id


def _write(pool, name):
    with pool.open(name, read_only=False) as disk:
        disk.write(b"x", 0)


def _snap(pool, name):
    with pool.open(name, read_only=False) as disk:
        disk.create_snap("snap")


def _trash(pool, name):
    pool.trash.move(name)


@pytest.mark.parametrize("call", [_write, _snap, _trash, Pool.remove])
def test_call_ends(ceph, hasty, name, owner, call):
    """Its client may not write any more, whatever the owner does later."""
    before = hasty.cluster.connection().handle.get_addrs()
    with pytest.raises(errors.DiskBusy) as caught:
        call(hasty, name)
    assert f"client.{owner} has its exclusive lock" in str(caught.value)
    assert f"vms/{name}" in str(caught.value)
    until = datetime.datetime.fromisoformat(blocklist(ceph)[before])
    left = until - datetime.datetime.now(datetime.UTC)
    assert left.total_seconds() > LISTED_SECONDS - 3600
    with hasty.open(name) as disk:
        assert disk.snaps() == ()
    # An OSD may show the watch of a client on the blocklist for a moment.
    wait_for(
        "only the owner has the disk open",
        lambda: {each.client_id for each in holders(hasty, name)} == {owner},
        30,
    )


@pytest.fixture
def journaled(hasty):
    """Has librbd need the lock for a new name, too."""
    features = ("layering", "exclusive-lock", "journaling")
    hasty.options = ImageOptions(features=features)


def test_rename_ends(hasty, journaled, name, owner):
    """It gives up only the connection for such images, once more."""
    kept = hasty.cluster.connection()
    with pytest.raises(errors.DiskBusy) as caught:
        hasty.publish(name, hasty.directory.image_id(name), f"{name}.new")
    assert f"client.{owner} has its exclusive lock" in str(caught.value)
    assert hasty.directory.names(name) == [name]
    assert not hasty.directory.exists(f"{name}.new")
    assert hasty.cluster.connection() is kept


def test_no_third_connection(hasty):
    in_use = hasty.for_image_in_use()
    assert in_use.cluster is not hasty.cluster
    assert in_use.for_image_in_use().cluster is in_use.cluster


def test_other_images_are_not_disturbed(ceph, hasty, instance, name, owner):
    """A snapshot of a disk gives up only the connection for such disks."""
    other = f"{instance}_disk.swap"
    hasty.create(other, 8 * MIB)
    kept = hasty.cluster.connection()
    source = source_snap.new(hasty, hasty.directory.image_id(name))
    with hasty.open(other, read_only=False) as disk:
        with pytest.raises(errors.DiskBusy):
            source_snap.make(hasty, source)
        disk.write(b"goes on", 0)
    assert hasty.cluster.connection() is kept
    listed = blocklist(ceph)
    assert kept.handle.get_addrs() not in listed


def test_call_that_works_itself_is_not_limited(hasty, name):
    hasty.create(name, MIB)
    with hasty.open(name, read_only=False) as disk:
        disk.write(b"x", 0)
        waits = hasty._lock_waits
        with waits.limited("wait", hasty.cluster.connection(), name) as wait:
            time.sleep(SECONDS * 1.2)
        assert wait.owner is None
        disk.write(b"y", 0)


def test_progress_puts_the_limit_off(hasty, name, owner):
    waits = hasty._lock_waits
    connection = hasty.cluster.connection()
    with waits.limited("wait", connection, name) as wait:
        for _ in range(4):
            time.sleep(SECONDS * 0.3)
            wait.restart()
    assert wait.owner is None


def test_call_that_ends_meanwhile_is_not_cut_off(
    ceph, hasty, name, owner, monkeypatch
):
    looked, ended = threading.Event(), threading.Event()
    looking = hasty._lock_waits._owner

    def look_late(*which):
        found = looking(*which)
        looked.set()
        assert ended.wait(30)
        return found

    monkeypatch.setattr(hasty._lock_waits, "_owner", look_late)
    connection = hasty.cluster.connection()
    with hasty._lock_waits.limited("wait", connection, name):
        assert looked.wait(30)
    (watcher,) = [
        each
        for each in threading.enumerate()
        if each.name == "nova-rbd-lock-wait"
    ]
    ended.set()
    watcher.join(30)
    assert hasty.cluster.uses(connection)
    assert connection.handle.get_addrs() not in blocklist(ceph)
