# SPDX-License-Identifier: Apache-2.0

"""The releases of a cluster change while guests use its disks.

Each release has to find what the one before it has kept for us. The programs
of the next ones come from ``tools/matrix.sh --cluster 12 --cluster 13``.
"""

import os

import pytest

from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.disks import delete, provision
from nova_rbd_backend.storage.images import purge, restore
from tests.support.blank_disks import blank_disk
from tests.support.clients import Client
from tests.support.clusters import started_ceph

MIB = 1 << 20
UPGRADES = os.environ.get("NOVA_RBD_CEPH_UPGRADES", "")
LEASE = ("nova_rbd_backend.a-test", "it")


@pytest.fixture(scope="module")
def ceph():
    """A cluster of its own, as no other test can be told to expect this."""
    with started_ceph() as cluster:
        yield cluster


@pytest.mark.skipif(not UPGRADES, reason="no other release of Ceph is given")
@pytest.mark.timeout(900)
def test_upgrade(ceph, pool, parent, instance):
    guests_disk = f"{instance}_disk"
    provision.clone_disk(pool, guests_disk, parent, 16 * MIB)
    guest = Client(ceph, guests_disk)
    assert guest.write("before") == "wrote"
    for programs in UPGRADES.split(os.pathsep):
        before = ceph.release
        left = _leave(ceph, pool, instance)
        ceph.upgrade(programs)
        assert ceph.release > before
        assert guest.write(f"after {before}") == "wrote"
        _find(pool, instance, left)
    guest.close()
    with pool.open(guests_disk) as disk:
        assert disk.parent() == parent
        assert disk.read(0, 8) == f"after {before}".encode()
        assert disk.read(4096, 4) == b"base"


def _leave(ceph, pool: Pool, instance: str) -> dict[str, str]:
    """Leave a dead guest, a deleted disk, half a disk and a lease."""
    dead, deleted, half = (f"{instance}_disk.eph{n}" for n in range(3))
    for name in (dead, deleted):
        blank_disk(pool, name, MIB)
    with pool.open(deleted, read_only=False) as disk:
        disk.write(b"kept", 0)
    delete.delete_disks(pool, instance, deleted.__eq__)
    client = Client(ceph, dead)
    assert client.write("old") == "wrote"
    client.kill()
    pool.create(journal.begin_creation(pool, half).draft, MIB)
    assert pool.objects.lease(*LEASE, "holder", 600, "me")
    return {"dead": dead, "deleted": deleted, "half": half}


def _find(pool: Pool, instance: str, left: dict[str, str]) -> None:
    assert not pool.objects.lease(*LEASE, "other", 600, "me")
    assert pool.objects.lease(*LEASE, "holder", 600, "me")

    (image,) = restore.find(pool, left["deleted"])
    restore.restore(pool, image)
    with pool.open(left["deleted"]) as disk:
        assert disk.read(0, 4) == b"kept"

    gone = delete.delete_disks(pool, instance, lambda d: d in left.values())
    assert set(gone.deleted) == {left["dead"], left["deleted"]}
    assert gone.undone == (left["half"],)
    assert set(gone.deleted) <= set(purge.purge(pool).purged)
    assert journal.deletions(pool) == journal.creations(pool) == []
