# SPDX-License-Identifier: Apache-2.0

"""Disks in a full pool can be deleted; other flows wait or fail."""

import contextlib
import subprocess

import pytest
import rbd

from nova_rbd_backend import errors
from nova_rbd_backend.ceph import qemu_img
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.disks import delete, provision
from nova_rbd_backend.storage.images import draft, purge
from tests.support.blank_disks import blank_disk
from tests.support.clients import catch_up, connect, over_its_quota
from tests.testbed.ceph import pools as pools_
from tests.testbed.process import wait_for

MIB = 1 << 20
# The order in which the ratios can be lowered.
RATIOS = ("nearfull", "backfillfull", "full")


@contextlib.contextmanager
def on_full_osds(admin, pool):
    before = pools_.command(admin, "osd dump")

    def is_marked():
        pools = pools_.command(admin, "osd pool ls", detail="detail")
        (found,) = [p for p in pools if p["pool_name"] == str(pool)]
        return "full" in found["flags_names"].split(",")

    for ratio in RATIOS:
        pools_.command(admin, f"osd set-{ratio}-ratio", ratio=0.00001)
    try:
        wait_for("the OSDs are full", is_marked, 30)
        yield
    finally:
        for ratio in reversed(RATIOS):
            value = before[f"{ratio}_ratio"]
            pools_.command(admin, f"osd set-{ratio}-ratio", ratio=value)
        wait_for("the OSDs have room", lambda: not is_marked(), 30)
        catch_up(admin)


@pytest.fixture
def hasty(ceph):
    """The pool of the disks, with operations that time out after 15 s."""
    return Pool(connect(ceph, operation_timeout_seconds=15), "vms")


def _disk(pool, name):
    blank_disk(pool, name, 8 * MIB)
    with pool.open(name, read_only=False) as disk:
        disk.write(b"x" * MIB, 0)
        disk.create_snap("nova-rbd-x")
        disk.protect_snap("nova-rbd-x")
        disk.write(b"y" * MIB, 0)


@pytest.mark.parametrize("full", [over_its_quota, on_full_osds])
def test_delete_in_a_full_pool(ceph, vms, hasty, instance, client, full):
    name, draft, trashed = (f"{instance}_{d}" for d in ("disk", "b", "c"))
    _disk(vms, trashed)
    delete.delete_disks(vms, instance)
    _disk(vms, name)
    half = journal.begin_creation(vms, draft)
    vms.create(half.draft, MIB)
    dead = client(name)
    assert dead.write("old") == "wrote"
    dead.kill()
    with ceph.admin() as admin, full(admin, vms):
        hasty.cluster.connection().handle.wait_for_latest_osdmap()
        deleted = delete.delete_disks(hasty, instance)
        assert deleted.deleted == (name,)
        assert deleted.undone == (draft,)
        purged = purge.purge_by_turns(hasty, 0).purged
        assert {name, trashed} <= set(purged)
        assert vms.objects.omap_get(journal.OBJECT, "") == {}
        soon = Pool(connect(ceph, operation_timeout_seconds=3), "vms")
        with pytest.raises(errors.OperationTimedOut) as caught:
            blank_disk(soon, name, MIB)
        assert "a pool that is full" in str(caught.value)
    assert blank_disk(vms, name, MIB).created
    delete.delete_disks(vms, instance)
    assert name in purge.purge(vms).purged


def test_conversion_into_a_pool_that_becomes_full(
    ceph, vms, instance, tmp_path, monkeypatch
):
    path, convert = tmp_path / "qcow2", qemu_img.copy
    command = ["qemu-img", "create", "-f", "qcow2", path, "8M"]
    subprocess.run(command, check=True, timeout=60)
    command = ["qemu-io", "-f", "qcow2", "-c", "write -P 1 0 8M", path]
    subprocess.run(command, check=True, timeout=60)
    name = f"{instance}_disk"
    soon = Pool(connect(ceph, operation_timeout_seconds=3), "vms")
    packed = draft.Packed("qcow2", 8 * MIB)
    with ceph.admin() as admin, contextlib.ExitStack() as full:

        def fill_first(*arguments):
            full.enter_context(over_its_quota(admin, vms))
            convert(*arguments)

        monkeypatch.setattr(qemu_img, "copy", fill_first)
        with pytest.raises(errors.OperationTimedOut) as caught:
            provision.import_disk(
                soon, name, str(path), None, {}, packed=packed
            )
    assert f"write to vms/{name}.nova-rbd-draft" in str(caught.value)
    assert "Connection timed out (check 'ceph health'" in str(caught.value)
    assert not vms.directory.exists(name)
    assert blank_disk(vms, name, MIB).created
    delete.delete_disks(vms, instance)
    assert name in purge.purge(vms).purged


def test_first_delete_in_a_full_namespace(ceph, vms, instance):
    """A namespace has its own trash, which the first deletion creates.

    Ceph 16 does not let it do so in a full pool, and the disk stays. Newer
    releases do.
    """
    with ceph.admin() as admin:
        rbd.RBD().namespace_create(admin.open_ioctx("vms"), instance)
        pool = Pool(connect(ceph), "vms", instance)
        name = f"{instance}_disk"
        blank_disk(pool, name, MIB)
        with over_its_quota(admin, vms):
            pool.cluster.connection().handle.wait_for_latest_osdmap()
            if ceph.release >= 18:
                deleted = delete.delete_disks(pool, instance).deleted
                assert deleted == (name,)
                assert name in purge.purge(pool).purged
                return
            with pytest.raises(errors.NoSpace):
                delete.delete_disks(pool, instance)
            assert pool.directory.exists(name)
    assert delete.delete_disks(pool, instance).deleted == (name,)
    assert name in purge.purge(pool).purged


def test_room_again_during_the_first_delete_in_a_full_namespace(
    ceph, vms, instance
):
    """The disk has to be kept, and is not removed at once."""
    with ceph.admin() as admin, contextlib.ExitStack() as full:
        rbd.RBD().namespace_create(admin.open_ioctx("vms"), instance)
        pool = Pool(connect(ceph), "vms", instance)
        name = f"{instance}_disk"
        blank_disk(pool, name, MIB)
        image_id = pool.directory.image_id(name)
        full.enter_context(over_its_quota(admin, vms))
        pool.cluster.connection().handle.wait_for_latest_osdmap()
        move = pool.trash.move

        def move_and_make_room(*arguments):
            try:
                move(*arguments)
            finally:
                full.close()
                pool.cluster.connection().handle.wait_for_latest_osdmap()

        pool.trash.move = move_and_make_room
        # Newer releases of Ceph make the trash in a full pool, too.
        with contextlib.suppress(errors.NoSpace):
            delete.delete_disks(pool, instance, retention_seconds=3600)
    pool.trash.move = move
    kept = pool.directory.listed_id(name) or pool.trash.get(image_id)
    assert kept, "the disk is gone"
    delete.delete_disks(pool, instance)
    purge.purge_one(pool, name, image_id, force=True)
