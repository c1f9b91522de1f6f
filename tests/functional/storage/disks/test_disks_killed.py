# SPDX-License-Identifier: Apache-2.0

"""A process may die at any step; the next one finishes or undoes its work."""

import contextlib
import random
import time
import uuid

import pytest
import rados

from nova_rbd_backend import names
from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.disks import delete, provision
from nova_rbd_backend.storage.images import purge
from tests.support import storage_child
from tests.support.blank_disks import blank_disk
from tests.support.clients import in_threads
from tests.support.clusters import make_osds_read_objects_again
from tests.testbed.process import TestbedError, wait_for

MIB = 1 << 20


def is_there(ioctx, key):
    """Return whether an object exists, not only a clone that a snap has kept.

    The pool lists such clones until the OSDs trim the snap, some time after
    its removal.
    """
    try:
        ioctx.stat(key)
    except rados.ObjectNotFound:
        return False
    return True


@pytest.fixture
def nothing_left(ceph, vms):
    """Check that the pool has the same objects after the test as before it."""

    def objects(with_data=False):
        with ceph.admin() as admin:
            ioctx = admin.open_ioctx("vms")
            found = {entry.key for entry in ioctx.list_objects()}
            if with_data:
                found = {key for key in found if is_there(ioctx, key)}
        # A pool gets these with its first image, clone or trashed image.
        kept = ("rbd_directory", "rbd_info", "rbd_trash", "rbd_children")
        return found - {*kept, journal.OBJECT}

    def settled():
        report = purge.purge(vms)
        return not (report.purged or report.stuck)

    # Otherwise objects of earlier tests would disappear during the test.
    wait_for("everything deleted before is purged", settled, 60, 1)
    before = objects()
    there = objects(with_data=True)
    yield

    def left():
        """Return what must not have changed, so that a failure shows it."""
        report = purge.purge(vms)
        if report.stuck:
            make_osds_read_objects_again(ceph)
        now = objects()
        changed = [f"{key} is left" for key in now - before]
        changed += [f"{key} is gone" for key in there - now]
        entries = vms.objects.omap_get(journal.OBJECT, "")
        return [*report.stuck, *report.waiting, *changed, *entries]

    # Watches of dead clients last for the cluster's watch timeout.
    with contextlib.suppress(TestbedError):
        wait_for("everything is purged", lambda: not left(), 40, 1)
    assert left() == []


def _new_name():
    return str(names.DiskName(str(uuid.uuid4()), "disk"))


def _check_whole(vms, name, offset, data):
    """Check a disk that is taken for whole, whether its maker died or not."""
    with vms.open(name) as disk:
        assert disk.size_bytes() == storage_child.GROWN_BYTES
        assert disk.metadata().items() >= storage_child.META.items()
        assert disk.read(offset, len(data)) == data


def _recover(vms, killed, make, offset, data):
    """Make every second disk again, and delete all of them.

    Returns, for each disk, whether it was whole before.
    """

    def recover(entry):
        step, name = entry
        whole = provision.is_whole(vms, name)
        if whole:
            _check_whole(vms, name, offset, data)
        if step % 2:
            facts = make(name)
            assert not (facts.created and whole)
            _check_whole(vms, name, offset, data)
        delete.delete_disks(vms, names.DiskName.parse(name).instance_uuid)
        assert not vms.directory.exists(name)
        return whole

    return in_threads(recover, killed)


def _recover_clones(vms, killed, parent):
    def make(name):
        return provision.clone_disk(
            vms, name, parent, storage_child.GROWN_BYTES, storage_child.META
        )

    return _recover(vms, killed, make, 4096, b"base")


def test_clone(ceph, vms, parent, nothing_left):
    argument = f"{parent.pool}/{parent.image}/{parent.snap}"
    killed = storage_child.kill_at_each_step(
        ceph, "clone", lambda: (_new_name(), argument)
    )

    whole = _recover_clones(vms, killed, parent)
    print(f"\nclone: {len(killed)} steps, whole after {sum(whole)}")
    assert not whole[0]
    assert whole[-1]


def test_import(ceph, vms, tmp_path, nothing_left):
    path = tmp_path / "source.raw"
    content = random.Random(2).randbytes(10 * MIB)
    path.write_bytes(content)
    killed = storage_child.kill_at_each_step(
        ceph, "import", lambda: (_new_name(), str(path))
    )

    def make(name):
        return provision.import_disk(
            vms,
            name,
            str(path),
            storage_child.GROWN_BYTES,
            storage_child.META,
        )

    whole = _recover(vms, killed, make, 0, content)
    print(f"\nimport: {len(killed)} steps, whole after {sum(whole)}")
    assert not whole[0]
    assert whole[-1]


def test_delete(ceph, vms, nothing_left):
    def prepare():
        # Keep the next child from freeing what the last one left.
        purge.purge(vms)
        instance = str(uuid.uuid4())
        for disk in ("disk", "disk.swap"):
            blank_disk(vms, f"{instance}_{disk}", 4 * MIB)
        name = f"{instance}_disk"
        with vms.open(name, read_only=False) as disk:
            disk.create_snap("nova-resize")
        return name, instance

    killed = storage_child.kill_at_each_step(ceph, "delete", prepare)
    for _, name in killed:
        instance = names.DiskName.parse(name).instance_uuid
        delete.delete_disks(vms, instance)
        assert vms.directory.names(instance) == []
    print(f"\ndelete: {len(killed)} steps")


def test_clone_killed_inside_librbd(ceph, vms, parent, nothing_left):
    """The process is killed at any time, not only between its calls."""
    argument = f"{parent.pool}/{parent.image}/{parent.snap}"
    killed = []
    for number in range(30):
        name = _new_name()
        child = storage_child.start(ceph, "clone", name, argument)
        assert child.stdout.readline() == "READY\n"
        time.sleep(number * 0.003)
        child.kill()
        child.communicate(timeout=60)
        killed.append((number, name))

    whole = _recover_clones(vms, killed, parent)
    print(f"\nkilled 30 clones within 90 ms: {sum(whole)} were whole")
