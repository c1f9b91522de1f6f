# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""A process may die at any point: the next one finishes or undoes."""

import concurrent.futures
import contextlib
import random
import signal
import subprocess
import sys
import time
import uuid

import pytest

from nova_rbd_backend import names
from nova_rbd_backend.storage import cluster, journal, provision, trash
from tests.functional import storage_child
from tests.testbed.process import TestbedError, wait_for

MIB = 1 << 20
# More than any flow has; the child that needs fewer ends by itself.
MOST_STEPS = 80


@pytest.fixture(scope="module")
def vms(ceph):
    settings = cluster.ClusterSettings(str(ceph.conf), "nova", 10, 60)
    return cluster.connect(settings).pool("vms")


@pytest.fixture(scope="module")
def parent(ceph):
    settings = cluster.ClusterSettings(str(ceph.conf), "glance", 10, 60)
    images = cluster.connect(settings).pool("images")
    name = str(uuid.uuid4())
    images.create(name, 8 * MIB)
    with images.open(name, read_only=False) as disk:
        disk.write(b"base", 4096)
        disk.create_snap("snap")
    return names.SnapPath("images", "", name, "snap")


@pytest.fixture
def nothing_left(ceph, vms):
    """The pool's objects are the same after the test as before it."""

    def objects():
        with ceph.admin() as admin:
            ioctx = admin.open_ioctx("vms")
            found = {entry.key for entry in ioctx.list_objects()}
        # Each pool gets these with its first image, clone or trash.
        kept = ("rbd_directory", "rbd_info", "rbd_trash", "rbd_children")
        return found - {*kept, journal.OBJECT}

    before = objects()
    yield

    def left():
        """What must not be there, to be seen in the failure."""
        report = trash.purge(vms)
        if report.stuck:
            _make_osds_read_objects_again(ceph)
        changed = objects() ^ before
        entries = vms.omap_get(journal.OBJECT, "")
        return [*report.stuck, *report.waiting, *changed, *entries]

    # Watches of the dead last for the cluster's watch timeout.
    with contextlib.suppress(TestbedError):
        wait_for("all of it is purged", lambda: not left(), 40, 1)
    assert left() == []


def _make_osds_read_objects_again(ceph):
    """Drop what the OSDs keep in memory of the pool's objects.

    A client that dies in the moment it registers a watch leaves one without
    a timer, so that it never lapses: seen in 16.2.15, blocklisting does not
    end it. Once the object is read from disk again the timer runs. An OSD
    keeps 64 objects for each PG (osd_pg_object_context_cache_count), so a
    pool in use gets there by itself.
    """
    with ceph.admin() as admin:
        ioctx = admin.open_ioctx("vms")
        keys = [f"not-an-image.{number}" for number in range(1500)]
        writes = [ioctx.aio_write_full(key, b"x") for key in keys]
        for write in writes:
            write.wait_for_complete()
        for key in keys:
            ioctx.remove_object(key)


def _child(ceph, flow, name, argument, step):
    command = [sys.executable, "-m", storage_child.__name__, str(ceph.conf)]
    command += [flow, name, argument, str(step)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _kill_at_each_step(ceph, flow, prepare):
    """(step, what prepare gave) of all children that killed themselves."""
    killed = []
    for step in range(1, MOST_STEPS):
        name, argument = prepare()
        child = _child(ceph, flow, name, argument, step)
        child.communicate(timeout=60)
        killed.append((step, name))
        if child.returncode == 0:
            assert step > 8, "the steps were not hooked"
            return killed
        assert child.returncode == -signal.SIGKILL
    raise AssertionError(f"{flow} has more than {MOST_STEPS} steps")


def _new_name():
    return str(names.DiskName(str(uuid.uuid4()), "disk"))


def _in_threads(work, items):
    with concurrent.futures.ThreadPoolExecutor(16) as threads:
        return list(threads.map(work, items))


def _check_whole(vms, name, offset, data):
    """A disk taken for whole is whole, killed or not."""
    with vms.open(name) as disk:
        assert disk.size_bytes() == storage_child.GROWN_BYTES
        assert disk.metadata().items() >= storage_child.META.items()
        assert disk.read(offset, len(data)) == data


def _recover(vms, killed, make, offset, data):
    """Every second one is made again, the others deleted."""

    def recover(entry):
        step, name = entry
        whole = provision.is_whole(vms, name)
        if whole:
            _check_whole(vms, name, offset, data)
        if step % 2:
            facts = make(name)
            assert not (facts.created and whole)
            _check_whole(vms, name, offset, data)
        trash.delete_disks(vms, names.DiskName.parse(name).instance_uuid)
        assert not vms.exists(name)
        return whole

    return _in_threads(recover, killed)


def test_clone(ceph, vms, parent, nothing_left):
    argument = f"{parent.pool}/{parent.image}/{parent.snap}"
    killed = _kill_at_each_step(ceph, "clone", lambda: (_new_name(), argument))

    def make(name):
        return provision.clone_disk(
            vms, name, parent, storage_child.GROWN_BYTES, storage_child.META
        )

    whole = _recover(vms, killed, make, 4096, b"base")
    print(f"\nclone: {len(killed)} steps, whole after {sum(whole)}")
    assert not whole[0]
    assert whole[-1]


def test_import(ceph, vms, tmp_path, nothing_left):
    path = tmp_path / "source.raw"
    content = random.Random(2).randbytes(10 * MIB)
    path.write_bytes(content)
    killed = _kill_at_each_step(
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
        # The child shall not free what the one before it left.
        trash.purge(vms)
        instance = str(uuid.uuid4())
        for disk in ("disk", "disk.swap"):
            provision.blank_disk(vms, f"{instance}_{disk}", 4 * MIB)
        name = f"{instance}_disk"
        with vms.open(name, read_only=False) as disk:
            disk.create_snap("nova-resize")
        return name, instance

    killed = _kill_at_each_step(ceph, "delete", prepare)
    for _, name in killed:
        instance = names.DiskName.parse(name).instance_uuid
        trash.delete_disks(vms, instance)
        assert vms.names(instance) == []
    print(f"\ndelete: {len(killed)} steps")


def test_clone_killed_inside_librbd(ceph, vms, parent, nothing_left):
    """At any time, not only between the calls."""
    argument = f"{parent.pool}/{parent.image}/{parent.snap}"
    killed = []
    for number in range(30):
        name = _new_name()
        child = _child(ceph, "clone", name, argument, 0)
        assert child.stdout.readline() == "READY\n"
        time.sleep(number * 0.003)
        child.kill()
        child.communicate(timeout=60)
        killed.append((number, name))

    def make(name):
        return provision.clone_disk(
            vms, name, parent, storage_child.GROWN_BYTES, storage_child.META
        )

    whole = _recover(vms, killed, make, 4096, b"base")
    print(f"\nkilled 30 clones within 90 ms: {sum(whole)} were whole")
