# SPDX-License-Identifier: Apache-2.0

"""The flows that make and delete disks, on a real Ceph."""

import subprocess
import sys
import time

import pytest
import rbd

from nova_rbd_backend import errors
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.image_options import ImageOptions
from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.disks import delete, provision
from nova_rbd_backend.storage.images import purge
from tests.support.blank_disks import blank_disk
from tests.support.clients import address, connect, in_threads
from tests.support.clusters import client_requests

pytestmark = pytest.mark.usefixtures("disks_deleted")
MIB = 1 << 20


def test_one_of_many_threads_makes_the_disk(vms, parent, instance):
    name = f"{instance}_disk"
    created = []

    def make(number):
        try:
            facts = provision.clone_disk(vms, name, parent, 16 * MIB)
        except errors.BeingCreated:
            return
        if facts.created:
            created.append(number)

    in_threads(make, range(10))
    assert len(created) == 1
    assert provision.is_whole(vms, name)


def test_erasure_coded_data_pool(ceph, vms, parent, instance):
    pool = Pool(vms.cluster, "vms", options=ImageOptions(data_pool="vms-data"))
    for name, make in {
        f"{instance}_disk": lambda name: provision.clone_disk(
            pool, name, parent, 16 * MIB
        ),
        f"{instance}_swap": lambda name: blank_disk(pool, name, 8 * MIB),
    }.items():
        assert make(name).created
        with pool.open(name, read_only=False) as disk:
            disk.write(b"x" * MIB, 4 * MIB)
            assert disk.read(4 * MIB, 2) == b"xx"
    with ceph.admin() as admin:
        data = [o.key for o in admin.open_ioctx("vms-data").list_objects()]
    for name in (f"{instance}_disk", f"{instance}_swap"):
        # rbd_data.<id of pool vms>.<image id>.<number of the object>
        assert any(f".{pool.directory.image_id(name)}." in key for key in data)


def test_namespace(ceph, instance):
    with ceph.admin() as admin:
        rbd.RBD().namespace_create(admin.open_ioctx("vms"), instance)
    pool = Pool(connect(ceph), "vms", instance)
    name = f"{instance}_disk"
    assert blank_disk(pool, name, MIB).created
    assert not Pool(connect(ceph), "vms").directory.exists(name)
    assert delete.delete_disks(pool, instance).deleted == (name,)
    assert purge.purge(pool).purged == (name,)


def test_missing_rights_and_pools(ceph, parent, instance):
    nobody = Pool(connect(ceph, "nobody", operation_timeout_seconds=5), "vms")
    refused = errors.NotPermitted
    if ceph.release >= 18:  # its OSDs don't answer a user without any rights
        refused = errors.OperationTimedOut
    with pytest.raises(refused) as caught:
        provision.clone_disk(nobody, f"{instance}_disk", parent)
    assert caught.value.pool == "vms"
    images = Pool(connect(ceph), "images")
    with pytest.raises(errors.NotPermitted):
        images.create(instance, MIB)
    with pytest.raises(errors.PoolNotFound):
        Pool(connect(ceph), "nope").directory.exists("x")


def test_lock_of_a_dead_process_ends_with_its_watch(ceph, vms, instance):
    """Deletion waits while the dead client still counts as alive."""
    name = f"{instance}_disk"
    vms.create(name, 8 * MIB)
    hold = (
        "import sys, time, rados, rbd\n"
        "c = rados.Rados(conffile=sys.argv[1], rados_id='nova')\n"
        "c.connect(); i = rbd.Image(c.open_ioctx('vms'), sys.argv[2])\n"
        "i.write(b'x', 0); i.flush(); print('held', flush=True)\n"
        "time.sleep(60)\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(ceph.conf), name],
        stdout=subprocess.PIPE,
    )
    assert holder.stdout.readline() == b"held\n"
    holder.kill()
    holder.communicate()
    begun = time.monotonic()
    assert delete.delete_disks(vms, instance).deleted == (name,)
    print(f"\ndeleted after {time.monotonic() - begun:.1f} s")
    assert name in purge.purge(vms).purged


def test_holder_that_keeps_its_lock_is_named(ceph, vms, instance):
    name = f"{instance}_disk"
    vms.create(name, 8 * MIB)
    other = connect(ceph, connect_timeout_seconds=14)
    ioctx = other.connection().ioctx("vms", "")
    with rbd.Image(ioctx, name) as image:
        image.lock_acquire(rbd.RBD_LOCK_MODE_EXCLUSIVE)
        with pytest.raises(errors.DiskBusy) as caught:
            delete.delete_disks(vms, instance, busy_limit_seconds=2)
        assert caught.value.watchers == (address(other),)
        assert address(other) in str(caught.value)
        # The image stays a disk, and its guest can run on.
        assert provision.is_whole(vms, name)
        assert name not in purge.purge(vms).purged
        assert vms.directory.exists(name)
    assert delete.delete_disks(vms, instance).deleted == (name,)
    assert name in purge.purge(vms).purged


def test_requests_beside_those_of_the_bare_calls(ceph, vms, parent, instance):
    """One more opening of an image would cost more than all that is ours."""
    meta = {f"nova.key{n}": "value" * 4 for n in range(6)}
    ioctx = vms.cluster.connection().ioctx("vms", "")
    images = vms.cluster.connection().ioctx("images", "")

    def bare(name):
        rbd.RBD().clone(images, parent.image, parent.snap, ioctx, name)
        with rbd.Image(ioctx, name) as image:
            image.resize(16 * MIB)

    def ours(name):
        provision.clone_disk(vms, name, parent, 16 * MIB, meta)

    counts = {bare: [], ours: []}
    with ceph.admin() as admin:
        # The first round also makes the objects that a pool has once.
        for number in range(4):
            for call, taken in counts.items():
                before = client_requests(ceph, admin)
                call(f"{instance}_{call.__name__}{number}")
                taken.append(client_requests(ceph, admin) - before)
    extra = min(counts[ours][1:]) - min(counts[bare][1:])
    print(f"\nrequests: {counts[ours]}, bare: {counts[bare]}")
    # The journal's entry, the metadata, the name, and the look-ups of these
    # and of the features. A read of a missing object does not count.
    assert 0 < extra <= 13
    assert vms.objects.omap_get(journal.OBJECT, f"create_{instance}") == {}
