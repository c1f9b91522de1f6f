# SPDX-License-Identifier: Apache-2.0

"""A process may die at any step; the next one finishes or undoes its work."""

import contextlib
import random
import uuid

import pytest
import rados

from nova_rbd_backend import names
from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.disks import delete, provision, rollback
from nova_rbd_backend.storage.images import draft, purge
from tests.support import storage_child
from tests.support.blank_disks import blank_disk
from tests.support.clients import in_threads
from tests.support.clusters import wait_for_dead_clients
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
    """Check that one purge leaves the pool as it was before the test."""

    def purge_once():
        wait_for_dead_clients(ceph, "vms")
        report = purge.purge(vms)
        return [*report.stuck, *report.waiting]

    def objects():
        with ceph.admin() as admin:
            ioctx = admin.open_ioctx("vms")
            found = {entry.key for entry in ioctx.list_objects()}
            there = {key for key in found if is_there(ioctx, key)}
        # A pool gets these with its first image, clone or trashed image.
        kept = {"rbd_directory", "rbd_info", "rbd_trash", "rbd_children"}
        kept.add(journal.OBJECT)
        return found - kept, there - kept

    # Otherwise objects of earlier tests would disappear during the test.
    assert purge_once() == []
    before, there = objects()
    yield
    assert purge_once() == []
    assert vms.objects.omap_get(journal.OBJECT, "") == {}

    def changed():
        """Return what must not have changed, so that a failure shows it."""
        now, _ = objects()
        return [f"{key} is left" for key in now - before] + [
            f"{key} is gone" for key in there - now
        ]

    with contextlib.suppress(TestbedError):
        wait_for("the OSDs remove the snaps", lambda: not changed(), 40)
    assert changed() == []


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


def test_clone(forks, ceph, vms, parent, nothing_left):
    argument = f"{parent.pool}/{parent.image}/{parent.snap}"
    killed = storage_child.kill_at_each_step(
        forks, ceph, "clone", lambda: (_new_name(), argument)
    )

    whole = _recover_clones(vms, killed, parent)
    print(f"\nclone: {len(killed)} steps, whole after {sum(whole)}")
    assert not whole[0]
    assert whole[-1]


def test_clone_with_a_journal(forks, ceph, vms, parent, nothing_left):
    argument = f"{parent.pool}/{parent.image}/{parent.snap}"
    killed = storage_child.kill_at_each_step(
        *(forks, ceph, "clone journaled"), lambda: (_new_name(), argument)
    )
    whole = _recover_clones(vms, killed, parent)
    print(f"\nclone: {len(killed)} steps, whole after {sum(whole)}")
    assert not whole[0]
    assert whole[-1]


@pytest.mark.parametrize("step", ["made", "named"])
def test_undo(forks, ceph, vms, nothing_left, step):
    """What undoes an attempt dies, with or without the maker's name."""

    def prepare():
        name = _new_name()
        entry = journal.begin_creation(vms, name)
        vms.create(entry.draft, MIB)
        image_id = vms.directory.image_id(entry.draft)
        if step == "named":
            vms.directory.set_id(name, image_id)
        return name, ""

    killed = storage_child.kill_at_each_step(
        *(forks, ceph, "undo"), prepare, at_least=3
    )
    for number, name in killed:
        if number % 2:
            draft.settle_attempts(vms, name)
            whole = provision.is_whole(vms, name)
            assert whole == (step == "named")
        _delete(vms, name)
        assert not vms.directory.exists(name)
        assert vms.directory.names(name) == []


def test_replace(forks, ceph, vms, parent, nothing_left):
    """There is a whole disk at any time, once the attempt is settled."""
    argument = f"{parent.pool}/{parent.image}/{parent.snap}"

    def prepare():
        name = _new_name()
        blank_disk(vms, name, MIB)
        return name, argument

    killed = storage_child.kill_at_each_step(forks, ceph, "replace", prepare)
    new = []
    for _, name in killed:
        draft.settle_attempts(vms, name)
        with vms.open(name) as disk:
            new.append(disk.size_bytes() == storage_child.GROWN_BYTES)
            assert new[-1] or disk.size_bytes() == MIB
        if new[-1]:
            _check_whole(vms, name, 4096, b"base")
        _delete(vms, name)
    print(f"replace: {len(killed)} steps, new after {sum(new)}")
    assert not new[0]
    assert new[-1]


def test_import(forks, ceph, vms, tmp_path, nothing_left):
    path = tmp_path / "source.raw"
    content = random.Random(2).randbytes(10 * MIB)
    path.write_bytes(content)
    killed = storage_child.kill_at_each_step(
        forks, ceph, "import", lambda: (_new_name(), str(path))
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


def test_delete(forks, ceph, vms, nothing_left):
    def prepare():
        instance = str(uuid.uuid4())
        for disk in ("disk", "disk.swap"):
            blank_disk(vms, f"{instance}_{disk}", 4 * MIB)
        name = f"{instance}_disk"
        with vms.open(name, read_only=False) as disk:
            disk.create_snap("nova-resize")
        return name, instance

    killed = storage_child.kill_at_each_step(forks, ceph, "delete", prepare)
    for _, name in killed:
        instance = names.DiskName.parse(name).instance_uuid
        delete.delete_disks(vms, instance)
        assert vms.directory.names(instance) == []
    print(f"\ndelete: {len(killed)} steps")


SNAP = "nova-resize"
OBJECTS = 12
OBJECT_BYTES = 4 * MIB


def _write_to_each_object(vms, name, count, data):
    with vms.open(name, read_only=False) as disk:
        for number in range(count):
            disk.write(data, number * OBJECT_BYTES)


def _old_disk(vms, changed=0):
    """Make a disk with old data, its snap, and new data on some objects."""
    name = _new_name()
    size = OBJECTS * OBJECT_BYTES
    blank_disk(vms, name, size)
    _write_to_each_object(vms, name, OBJECTS, b"old")
    with vms.open(name, read_only=False) as disk:
        disk.create_snap(SNAP)
        if changed:
            # A resize that is rolled back has grown the disk.
            disk.resize(size + OBJECT_BYTES)
            disk.write(b"new", size)
    _write_to_each_object(vms, name, changed, b"newer" + bytes(MIB))
    return name


def _check_old(vms, name, size=OBJECTS * OBJECT_BYTES):
    """Check that the disk is as it was at its snap, but for its size."""
    with vms.open(name) as disk:
        assert disk.size_bytes() == size
        assert [snap.name for snap in disk.snaps()] == [SNAP]
        for number in range(OBJECTS):
            data = disk.read(number * OBJECT_BYTES, 2 * MIB)
            assert data == b"old".ljust(2 * MIB, b"\0")


def _delete(vms, name):
    delete.delete_disks(vms, names.DiskName.parse(name).instance_uuid)


def _roll_back_again(vms, killed):
    def recover(entry):
        _, name = entry
        rollback.roll_back(vms, name, SNAP)
        _check_old(vms, name)
        _delete(vms, name)

    in_threads(recover, killed)


# With few changes they are copied back, with many librbd rolls back.
@pytest.mark.parametrize(("changed", "steps"), [(1, 8), (2, 2)])
def test_roll_back(forks, ceph, vms, nothing_left, changed, steps):
    """The snap stays as it is, so that the roll-back can be repeated."""
    killed = storage_child.kill_at_each_step(
        *(forks, ceph, "roll back"),
        lambda: (_old_disk(vms, changed), SNAP),
        at_least=steps,
    )
    _roll_back_again(vms, killed)
    print(f"roll back: {len(killed)} steps")


@pytest.mark.parametrize("changed", [1, 2])
def test_roll_back_killed_inside_librbd(
    forks, ceph, vms, tmp_path, nothing_left, changed
):
    killed = storage_child.kill_inside_librbd(
        *(forks, ceph, "roll back"),
        lambda: (_old_disk(vms, changed), SNAP),
        tmp_path,
    )
    _roll_back_again(vms, killed)


def test_grow(forks, ceph, vms, nothing_left):
    size = (OBJECTS + 1) * OBJECT_BYTES
    killed = storage_child.kill_at_each_step(
        *(forks, ceph, "grow"),
        lambda: (_old_disk(vms), str(size)),
        at_least=2,
    )
    for _, name in killed:
        provision.grow(vms, name, size)
        _check_old(vms, name, size)
        _delete(vms, name)


def test_clone_killed_inside_librbd(
    forks, ceph, vms, parent, tmp_path, nothing_left
):
    """The process dies inside librbd, not only between its calls."""
    argument = f"{parent.pool}/{parent.image}/{parent.snap}"
    killed = storage_child.kill_inside_librbd(
        forks, ceph, "clone", lambda: (_new_name(), argument), tmp_path
    )
    whole = _recover_clones(vms, killed, parent)
    print(f"{sum(whole)} of {len(whole)} were whole")
