# SPDX-License-Identifier: Apache-2.0

"""Jobs take one of the few slots if they wait or copy, and only then.

Under eventlet all jobs share the native threads with Nova's calls of libvirt
(tests/unit/test_threads.py). A job without a slot must therefore be quick, and
a quick job must not wait for a slot.
"""

import types
import uuid

import pytest

from nova_rbd_backend import names, threads
from nova_rbd_backend.ceph.image import Image
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage import fencing
from nova_rbd_backend.storage.disks import delete
from tests.nova.images import MIB, another, cache, content, never, rbd
from tests.nova.virt import test_start_fences as starts
from tests.support.clients import connect

instance = starts.instance
client = starts.client


@pytest.fixture
def jobs(monkeypatch):
    """The slots that were taken, and in which slot something slow was done."""
    found = types.SimpleNamespace(slots=set(), slow=set())
    run, here = threads.run, ["no job"]

    def noted(func, *args, long=False, waits=False, **kwargs):
        here.append("long" if long else "waits" if waits else "none")
        found.slots.add(here[-1])
        try:
            return run(func, *args, long=long, waits=waits, **kwargs)
        finally:
            here.pop()

    def note(owner, name):
        call = getattr(owner, name)

        def slow(*args, **kwargs):
            found.slow.add((name, here[-1]))
            return call(*args, **kwargs)

        monkeypatch.setattr(owner, name, slow)

    sleep = threads.native_sleep

    def slept(seconds):
        # A close for reading sleeps for some milliseconds.
        if seconds > 0.01:
            found.slow.add(("native_sleep", here[-1]))
        sleep(seconds)

    found.note = note
    monkeypatch.setattr(threads, "run", noted)
    monkeypatch.setattr(threads, "native_sleep", slept)
    note(fencing, "fence")
    note(fencing, "fence_dead")
    note(Image, "flatten")
    return found


def test_start(driver, instance, jobs):
    assert starts.start(driver, instance).is_active()
    assert jobs.slots == {"none"}
    assert jobs.slow == set()


def test_start_that_waits_for_a_living_client(driver, instance, client, jobs):
    from nova import exception

    with pytest.raises(exception.StorageError):
        starts.start(driver, instance)
    assert jobs.slow == {("fence", "waits"), ("native_sleep", "waits")}


def test_start_that_fences(driver, instance, client, jobs):
    client.kill()
    assert starts.start(driver, instance).is_active()
    assert ("fence", "waits") in jobs.slow
    assert {slot for _, slot in jobs.slow} == {"waits"}


def test_start_of_an_evacuated_guest(driver, vms, instance, client, jobs):
    from nova import exception

    instance.host = "another"
    with pytest.raises(exception.StorageError, match="two guests"):
        driver.spawn(None, instance, None, [], "", {})
    assert jobs.slow == {("fence", "waits"), ("native_sleep", "waits")}


@pytest.fixture
def snapshot(ceph, pools):
    """A snapshot that has two parents: its id in Glance, and its location."""
    glance = Pool(connect(ceph, "glance"), "images")
    at = str(uuid.uuid4())
    glance.create(at, 8 * MIB)
    image_id = str(uuid.uuid4())
    for name in (str(uuid.uuid4()), names.snapshot_image(image_id)):
        with glance.open(at, read_only=False) as image:
            image.create_snap("snap")
        glance.clone(glance, at, "snap", name)
        at = name
    with glance.open(at, read_only=False) as image:
        image.create_snap("snap")
    return image_id, f"rbd://{pools.vms.cluster.fsid()}/images/{at}/snap"


def test_boot_of_a_snapshot(pools, glance, snapshot, jobs):
    """It copies only if there are too many parents."""
    image_id, location = snapshot
    glance(urls=(location,))
    thin, copied = rbd(another()), rbd(another())
    pools.conf(group="nova_rbd", clone_depth_hard_limit=3)
    cache(thin, never, image_id=image_id)
    assert jobs.slots == {"none"}
    assert content(pools, thin, 1)[2] is not None

    pools.conf(group="nova_rbd", clone_depth_hard_limit=2)
    cache(copied, never, image_id=image_id)
    assert jobs.slow == {("flatten", "long")}
    assert content(pools, copied, 1)[2] is None


@pytest.fixture
def disk(pools):
    """The name of a disk."""
    name = str(names.DiskName(str(uuid.uuid4()), "disk"))
    pools.vms.create(name, MIB)
    yield name
    delete.delete_disk(pools.vms, name)


def test_grow(instance, disk, jobs):
    """The disk that a start finds is big enough, mostly."""
    from nova_rbd_backend.virt.disk import Disk

    found = Disk(instance, "disk", disk)
    found.grow(MIB)
    assert jobs.slots == {"none"}
    found.grow(2 * MIB)
    assert jobs.slow == {("fence_dead", "waits")}
    assert found.size_bytes() == 2 * MIB


def test_snapshot_takes_no_slot_while_its_guest_is_frozen(
    instance, disk, jobs
):
    from nova_rbd_backend.storage.snapshots import make
    from nova_rbd_backend.virt import edge
    from nova_rbd_backend.virt.snapshot import to_glance

    instance.project_id, instance.image_ref = "p" * 32, str(uuid.uuid4())
    jobs.note(make, "snap")
    snapshot = to_glance.ToGlance(
        None,
        instance,
        names.ImagePath("vms", "", disk),
        str(uuid.uuid4()),
        "raw",
    )._make()
    assert jobs.slow == {("fence_dead", "waits"), ("snap", "none")}
    pool, entry = edge.store().snapshots, snapshot.detachment
    edge.run(lambda: make.remove(pool, entry))
