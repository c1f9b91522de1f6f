# SPDX-License-Identifier: Apache-2.0

"""A dead client stays on the blocklist for long, whoever meets its lock first.

librbd breaks such a lock by itself as soon as the client's watch has ended,
but lists the client for the monitors' default time only. The monitors keep
the first expiry, so the fencing before the next start would come too late.
"""

import contextlib
import datetime
import uuid

import pytest

from nova_rbd_backend import errors
from nova_rbd_backend.convert import rbd_disk
from nova_rbd_backend.settings import BLOCKLIST_SECONDS
from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.disks import delete, provision, rollback
from nova_rbd_backend.storage.images import purge, source_snap
from nova_rbd_backend.storage.snapshots import detach
from nova_rbd_backend.storage.snapshots import make as snapshots
from tests.support.clients import blocklist, holders, in_threads

MIB = 1 << 20


def listed_seconds(ceph, address):
    """Return for how long from now an address is on the blocklist."""
    until = blocklist(ceph).get(address)
    if until is None:
        return None
    end = datetime.datetime.strptime(until, "%Y-%m-%dT%H:%M:%S.%f%z")
    return (end - datetime.datetime.now(datetime.UTC)).total_seconds()


def is_listed_for_long(ceph, address):
    seconds = listed_seconds(ceph, address)
    return seconds is not None and abs(seconds - BLOCKLIST_SECONDS) < 3600


def take_snapshot(vms, name, entry):
    attempt = snapshots.begin(vms, vms, name, str(uuid.uuid4()))
    snapshots.snap(attempt)
    snapshots.undo(vms, attempt)


def remove_source_snap(vms, name, entry):
    image_id = vms.directory.image_id(name)
    source_snap.remove(vms, journal.Source("vms", image_id, "s"))


def grow(vms, name, entry):
    assert provision.grow(vms, name, 64 * MIB)


def roll_back(vms, name, entry):
    rollback.roll_back(vms, name, "s")


def unmark(vms, name, entry):
    rbd_disk.unmark(vms, name)


def detach_snapshot(vms, name, entry):
    """The client is the process that has begun to detach the snapshot."""
    detach.detach(vms, entry, held_seconds=0)


def client_dies_after_the_fencing(vms, name, entry):
    """librbd itself meets the lock, and waits for the end of the watch."""
    # 16.2 cannot list a client for another time than the default, and so
    # leaves the lock as it is.
    with (
        contextlib.suppress(errors.ReadOnly),
        vms.open(name, read_only=False) as disk,
    ):
        disk.create_snap("t")
    grow(vms, name, entry)


WORK = (
    client_dies_after_the_fencing,
    take_snapshot,
    remove_source_snap,
    grow,
    roll_back,
    unmark,
    detach_snapshot,
)


@pytest.fixture
def dead(vms, parent, client):
    """Return a function that gives a disk whose client has died.

    It returns the disk's name, the entry of a snapshot of it, and the dead
    client's address.
    """
    given = []

    def made(of_snapshot=False):
        name = f"{uuid.uuid4()}_disk"
        provision.clone_disk(vms, name, parent)
        with vms.open(name, read_only=False) as disk:
            disk.create_snap("s")
            disk.create_snap(rbd_disk.MARK)
        attempt = snapshots.begin(vms, vms, name, str(uuid.uuid4()))
        snapshots.snap(attempt)
        found = snapshots.publish(vms, attempt, {})
        held = found.image if of_snapshot else name
        ended = client(held)
        assert ended.write("old") == "wrote"
        (holder,) = holders(vms, held)
        assert holder.lock_cookie is not None
        ended.kill()
        given.append((name, found.detachment))
        return name, found.detachment, holder.address

    yield made
    for name, entry in given:
        snapshots.remove(vms, entry)
        delete.delete_disk(vms, name)
    purge.purge(vms)


def test_work_on_a_disk_whose_client_has_died(ceph, vms, dead, client):
    made = {work: dead(work is detach_snapshot) for work in WORK}
    # Beside it, the dead client is known only when its watch ends.
    living = client(made[grow][0])

    def run(work):
        name, entry, _ = made[work]
        work(vms, name, entry)

    in_threads(run, WORK)

    living.close()
    for work, (_, _, address) in made.items():
        assert is_listed_for_long(ceph, address), work.__name__


def test_flatten_command(ceph, nova_rbd, dead):
    name, _, address = dead()

    nova_rbd.table("flatten", f"vms/{name}")

    assert is_listed_for_long(ceph, address)
