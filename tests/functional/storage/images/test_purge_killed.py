# SPDX-License-Identifier: Apache-2.0

"""A process may die while it deletes and purges, with the turn or without it.

Another host, or the next process of the same host, frees what is left. What
is to be kept stays.
"""

import uuid

import pytest
import rbd

from nova_rbd_backend import names
from nova_rbd_backend.ceph import lease
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.images import discard, purge
from tests.support import storage_child
from tests.support.clients import in_threads
from tests.support.clusters import wait_for_dead_clients
from tests.testbed.process import wait_for

MIB = 1 << 20
HOUR = 3600
# What a pool gets with its first image, clone, deletion and purge.
STAYS = {
    *("rbd_directory", "rbd_info", "rbd_trash", "rbd_children"),
    *(journal.OBJECT, lease.OBJECT),
}


@pytest.fixture(params=[True, False], ids=["turn", "no turn"])
def has_turn(request):
    """Whether the process that dies has the turn to purge for all hosts."""
    return request.param


@pytest.fixture
def namespace(ceph, vms, has_turn):
    """Return a function that makes a namespace with images to delete.

    There are a disk of a base, both with a snap. In the trash are a disk that
    is kept and, for a host that has the turn, a snapshot of Glance's.
    """

    def make():
        name = str(uuid.uuid4())
        with ceph.admin() as admin, admin.open_ioctx("vms") as ioctx:
            rbd.RBD().namespace_create(ioctx, name)
        pool = Pool(vms.cluster, "vms", name)
        kept = _new_disk()
        pool.create(kept, MIB)
        discard.discard(pool, kept, retention_seconds=HOUR)
        base = f"{names.BASE_PREFIX}{uuid.uuid4()}"
        _with_snap(pool, base, "base")
        disk = _new_disk()
        pool.clone(pool, base, "base", disk)
        with pool.open(disk, read_only=False) as image:
            image.create_snap("nova-resize")
        if has_turn:
            snapshot = names.snapshot_image(str(uuid.uuid4()))
            _with_snap(pool, snapshot, "snap")
            pool.trash.move(snapshot)
        else:
            others = ("another's cookie", HOUR, "another host")
            assert pool.objects.lease(lease.OBJECT, purge._TURN, *others)
        return name, name

    return make


def _new_disk():
    return str(names.DiskName(str(uuid.uuid4()), "disk"))


def _with_snap(pool, name, snap):
    pool.create(name, MIB)
    with pool.open(name, read_only=False) as image:
        image.create_snap(snap)


@pytest.fixture
def purge_again(ceph, vms, has_turn, monkeypatch):
    """Return a function that purges what dead processes have left."""
    # As if the processes had died some minutes ago.
    monkeypatch.setattr(purge, "_LONGEST_MOVE_SECONDS", 0.0)
    monkeypatch.setattr(purge, "BUSY_LIMIT_SECONDS", 0.0)

    def purge_each(killed):
        found = [namespace for _, namespace in killed]
        wait_for_dead_clients(ceph, "vms", found)
        in_threads(purge_again, found)

    def purge_again(namespace):
        pool = Pool(vms.cluster, "vms", namespace)
        for image in pool.directory.names(""):
            discard.discard(pool, image)

        def purged():
            report = purge.purge_by_turns(pool, storage_child.PERIOD_SECONDS)
            assert has_turn or not report.is_whole
            left = len(journal.deletions(pool)), len(pool.trash.entries())
            return left == (1, 1)

        wait_for(f"namespace {namespace} is purged", purged, 40, 1)
        (kept,) = pool.trash.entries()
        assert kept.is_retained
        purge.purge_one(pool, kept.name, kept.image_id, force=True)
        assert _objects(ceph, namespace) <= STAYS
        assert pool.objects.omap_get(journal.OBJECT, "") == {}

    return purge_each


def _objects(ceph, namespace):
    with ceph.admin() as admin, admin.open_ioctx("vms") as ioctx:
        ioctx.set_namespace(namespace)
        return {entry.key for entry in ioctx.list_objects()}


def test_each_step(forks, ceph, namespace, purge_again):
    killed = storage_child.kill_at_each_step(
        forks, ceph, "purge by turns", namespace, at_least=20
    )
    purge_again(killed)
    print(f"purge by turns: {len(killed)} steps")


@pytest.mark.parametrize("has_turn", [True], indirect=True)
def test_inside_librbd(forks, ceph, namespace, purge_again, tmp_path):
    killed = storage_child.kill_inside_librbd(
        *(forks, ceph, "purge by turns", namespace, tmp_path), kills=12
    )
    purge_again(killed)
