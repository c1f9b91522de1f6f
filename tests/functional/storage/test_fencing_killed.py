# SPDX-License-Identifier: Apache-2.0

"""A process may die while it fences the dead clients of a disk.

The next one finishes that, and the guest starts with all that was written.
"""

import uuid

from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.image_options import ImageOptions
from nova_rbd_backend.storage import fencing
from nova_rbd_backend.storage.disks import delete
from nova_rbd_backend.storage.images import purge
from tests.support import storage_child
from tests.support.blank_disks import blank_disk
from tests.support.clients import blocklist, holders, in_threads

MIB = 1 << 20
DISKS = ("disk", "disk.swap")


def test_each_step(forks, ceph, vms, client):
    addresses = {}
    options = ImageOptions(features=("layering",))
    lockless = Pool(vms.cluster, "vms", options=options)

    def prepare():
        """Make an instance whose guest has died with its host."""
        instance = str(uuid.uuid4())
        disks = [f"{instance}_{disk}" for disk in DISKS]
        for name in disks:
            blank_disk(vms, name, MIB)
        guests = [client(name) for name in disks]
        for guest in guests:
            assert guest.write("old") == "wrote"
        # A disk of Nova's own backend, which gets the feature at this start.
        lockless.create(f"{instance}_disk.eph0", MIB)
        found = [holders(vms, name) for name in disks]
        addresses[instance] = {client.address for (client,) in found}
        for guest in guests:
            guest.kill()
        return disks[0], instance

    # Two clients are put on the blocklist, two locks are broken, and one disk
    # gets the feature exclusive-lock.
    killed = storage_child.kill_at_each_step(
        forks, ceph, "fence", prepare, at_least=10
    )

    def recover(entry):
        _, name = entry
        instance = name.split("_")[0]
        fencing.fence_for_start(vms, instance)
        assert addresses[instance] <= blocklist(ceph).keys()
        for disk in DISKS:
            image = f"{instance}_{disk}"
            assert holders(vms, image) == ()
            with vms.open(image, read_only=False) as opened:
                assert opened.read(0, 3) == b"old"
                opened.write(b"new", 0)
        third = vms.directory.image_id(f"{instance}_disk.eph0")
        assert vms.headers.has_exclusive_lock(third)
        delete.delete_disks(vms, instance)

    in_threads(recover, killed)
    purge.purge(vms)
    print(f"fence: {len(killed)} steps")
