# SPDX-License-Identifier: Apache-2.0

"""Dead, frozen and living clients of a disk.

test_fencing_guests.py has the same with guests.
"""

import multiprocessing
import os
import signal
import subprocess
import threading
import time

import pytest

from nova_rbd_backend import errors, names
from nova_rbd_backend.ceph import cluster as cluster_
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.settings import ClusterSettings
from nova_rbd_backend.storage import fencing, journal
from nova_rbd_backend.storage.disks import delete, provision
from nova_rbd_backend.storage.images import discard, purge
from tests.support.blank_disks import blank_disk
from tests.support.clients import blocklist, connect, holders, make_user
from tests.support.clusters import started_ceph
from tests.testbed.ceph.pools import command
from tests.testbed.process import freeze, wait_for

MIB = 1 << 20
# Fencing takes 2 s, and more beside other tests; without it, Ceph takes 28 s.
LIMIT_SECONDS = 10.0
DISKS = ("disk", "disk.swap", "disk.eph0")


@pytest.fixture(scope="module")
def ceph():
    """A cluster with Ceph's own watch timeout, 30 s."""
    with started_ceph() as cluster_:
        yield cluster_


@pytest.fixture
def name(vms, instance):
    """A disk of the instance."""
    name = f"{instance}_disk"
    blank_disk(vms, name, MIB)
    return name


def timed(func, *args):
    began = time.monotonic()
    func(*args)
    return time.monotonic() - began


def write(vms, image, text):
    with vms.open(image, read_only=False) as disk:
        disk.write(text, 0)
        disk.flush()


def read(vms, image, count):
    with vms.open(image) as disk:
        return disk.read(0, count)


def test_killed_clients_of_all_disks(ceph, vms, instance, client, noted):
    for disk in DISKS:
        blank_disk(vms, f"{instance}_{disk}", MIB)
    clients = {d: client(f"{instance}_{d}") for d in DISKS}
    for disk in ("disk", "disk.swap"):  # the third only has its disk open
        assert clients[disk].write("old") == "wrote"
    before = {d: holders(vms, f"{instance}_{d}") for d in DISKS}
    for each in clients.values():
        each.kill()
    began = time.monotonic()
    fencing.fence_for_start(vms, instance)
    fenced = time.monotonic() - began
    for disk in DISKS:
        write(vms, f"{instance}_{disk}", b"new")
    written = time.monotonic() - began
    print(f"fenced after {fenced:.2f} s, written after {written:.2f} s")
    assert written < LIMIT_SECONDS
    facts = {fact.image: fact for fact in noted}
    assert len(facts) == len(noted) == len(DISKS)
    listed = blocklist(ceph)
    for disk in DISKS:
        fact = facts[f"{instance}_{disk}"]
        (dead,) = before[disk]
        assert fact.client_id == clients[disk].client_id == dead.client_id
        assert fact.address == dead.address
        assert fact.lock_broken == (dead.lock_cookie is not None)
        assert fact.address in listed
    assert [facts[f"{instance}_{d}"].lock_broken for d in DISKS] == [
        *(True, True, False)
    ]


def test_first_write_of_qemu_after_a_kill(ceph, vms, instance, name, client):
    dead = client(name)
    assert dead.write("old") == "wrote"
    dead.kill()
    path = names.ImagePath("vms", "", name)
    disk = path.for_qemu("nova", str(ceph.conf))
    began = time.monotonic()
    fencing.fence_for_start(vms, instance)
    fenced = time.monotonic() - began
    words = ("-f", "raw", "-c", "write -P 1 0 512", "-c", "flush")
    subprocess.run(
        ["qemu-io", *words, disk],
        check=True,
        timeout=60,
        capture_output=True,
    )
    written = time.monotonic() - began
    print(f"fenced after {fenced:.2f} s, QEMU wrote after {written:.2f} s")
    assert written < LIMIT_SECONDS
    assert read(vms, name, 3) == b"\1\1\1"


def check_frozen_client(vms, instance, name, frozen):
    assert frozen.write("old") == "wrote"
    frozen.signal(signal.SIGSTOP)
    fencing.fence_for_start(vms, instance)
    write(vms, name, b"new")
    frozen.signal(signal.SIGCONT)
    assert frozen.write("BAD") == "failed ConnectionShutdown"
    assert read(vms, name, 3) == b"new"


def test_frozen_client_writes_no_more(vms, instance, name, client):
    check_frozen_client(vms, instance, name, client(name))


def test_delete_after_a_kill(vms, instance, name, client):
    dead = client(name)
    assert dead.write("old") == "wrote"
    dead.kill()
    seconds = timed(delete.delete_disks, vms, instance)
    print(f"deleted after {seconds:.2f} s")
    assert seconds < LIMIT_SECONDS
    assert name in purge.purge(vms).purged


def test_living_client_is_untouched(ceph, vms, instance, name, client, noted):
    alive = client(name)
    assert alive.write("old") == "wrote"
    before = holders(vms, name), blocklist(ceph)
    with pytest.raises(errors.DiskInUse) as caught:
        fencing.fence_for_start(vms, instance)
    (holder,) = before[0]
    assert holder.address in str(caught.value)
    assert name in str(caught.value)
    assert (holders(vms, name), blocklist(ceph)) == before
    assert not noted
    assert alive.write("more") == "wrote"


def test_living_client_keeps_its_disk(ceph, vms, instance, name, client):
    """A guest could write on in the trash, and lose it all to a purge."""
    alive = client(name)
    assert alive.write("old") == "wrote"
    (holder,) = holders(vms, name)
    before = blocklist(ceph)
    with pytest.raises(errors.DiskBusy) as caught:
        delete.delete_disks(vms, instance, busy_limit_seconds=2)
    assert caught.value.watchers == (holder.address,)
    assert f"client.{alive.client_id}" in str(caught.value)
    assert provision.is_whole(vms, name)
    assert name not in purge.purge(vms).purged
    assert journal.deletion(vms, vms.directory.image_id(name)) is None
    assert (holders(vms, name), blocklist(ceph)) == ((holder,), before)
    assert alive.write("more") == "wrote"
    alive.close()
    assert delete.delete_disks(vms, instance).deleted == (name,)
    assert name in purge.purge(vms).purged


def test_living_client_beside_a_dead_one_keeps_its_disk(
    vms, instance, name, client
):
    """It is not known yet which of the two is dead."""
    dead, alive = client(name), client(name)
    dead.kill()
    assert alive.write("old") == "wrote"
    with pytest.raises(errors.DiskBusy):
        delete.delete_disks(vms, instance, busy_limit_seconds=4)
    assert provision.is_whole(vms, name)
    assert alive.write("more") == "wrote"


def test_living_client_keeps_a_disk_that_is_replaced(vms, name, client):
    """For instance a config drive, or a swap disk that a resize enlarges."""
    alive = client(name)
    assert alive.write("old") == "wrote"
    with pytest.raises(errors.DiskBusy, match=f"client.{alive.client_id}"):
        discard.discard(vms, name, busy_limit_seconds=2)
    assert provision.is_whole(vms, name)
    assert alive.write("more") == "wrote"


def test_draft_of_a_living_maker_is_undone(vms, instance, client):
    """Nova makes a disk on one host at a time: the maker was given up."""
    name = f"{instance}_disk"
    entry = journal.begin_creation(vms, name)
    vms.create(entry.draft, MIB)
    maker = client(entry.draft)
    assert maker.write("old") == "wrote"
    began = time.monotonic()
    assert blank_disk(vms, name, MIB).undone
    assert time.monotonic() - began < LIMIT_SECONDS


def test_delete_waits_for_a_client_that_ends(
    vms, instance, name, client, noted
):
    """Deletion goes on as soon as the client has ended."""
    busy = client(name)
    assert busy.write("old") == "wrote"
    end = threading.Timer(0.2, busy.close)
    end.start()
    assert delete.delete_disks(vms, instance).deleted == (name,)
    end.join()
    assert not noted
    assert name in purge.purge(vms).purged


def test_start_waits_for_a_client_that_ends(
    vms, instance, name, client, noted
):
    busy = client(name)
    assert busy.write("old") == "wrote"
    end = threading.Timer(1, busy.close)
    end.start()
    began = time.monotonic()
    fencing.fence_for_start(vms, instance)
    assert time.monotonic() - began > 0.5, (
        "the client ended before it was seen"
    )
    end.join()
    assert holders(vms, name) == ()
    assert not noted


def test_dead_client_beside_a_living_one(ceph, vms, name, client, noted):
    dead, alive = client(name), client(name)
    assert dead.write("old") == "wrote"
    dead.kill()
    before = holders(vms, name), blocklist(ceph)
    held = fencing.fence(vms, {name: vms.directory.image_id(name)})
    assert held[name].unclear
    assert (holders(vms, name), blocklist(ceph)) == before
    alive.close()
    assert fencing.fence(vms, {name: vms.directory.image_id(name)}) == {}
    assert [fact.client_id for fact in noted] == [dead.client_id]


def _fence_and_die(conf, image):
    """Die when the client is on the blocklist, but its lock is not broken."""
    settings = ClusterSettings(conf, "nova", 10, 60)
    vms = Pool(cluster_.connect(settings), "vms")
    vms.holders.break_lock = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    fencing.fence(vms, {image: vms.directory.image_id(image)})


def test_killed_between_blocklist_and_break(ceph, vms, instance, name, client):
    dead = client(name)
    assert dead.write("old") == "wrote"
    dead.kill()
    process = multiprocessing.get_context("spawn").Process(
        target=_fence_and_die, args=(str(ceph.conf), name)
    )
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    wait_for(
        "the OSDs end the fenced client's watch",
        lambda: not any(holder.watches for holder in holders(vms, name)),
        10,
    )
    (left,) = holders(vms, name)
    assert left.lock_cookie is not None
    assert left.address in blocklist(ceph)
    seconds = timed(fencing.fence_for_start, vms, instance)
    assert seconds < LIMIT_SECONDS / 2  # no client has to be waited for
    assert holders(vms, name) == ()
    write(vms, name, b"new")


def test_paused_osds_make_no_client_look_dead(
    ceph, vms, instance, name, client
):
    alive = client(name)
    assert alive.write("old") == "wrote"
    before = blocklist(ceph)
    hasty = Pool(connect(ceph, operation_timeout_seconds=3), "vms")
    hasty.directory.exists(name)
    ceph.pause_osds()
    try:
        with pytest.raises(errors.OperationTimedOut):
            fencing.fence(hasty, {name: "1234"})
    finally:
        ceph.resume_osds()
    assert blocklist(ceph) == before
    assert alive.write("more") == "wrote"


@pytest.mark.parametrize("frozen", [False, True])
def test_start_leaves_the_maker_of_a_draft_alone(
    ceph, vms, instance, client, noted, frozen
):
    entry = journal.begin_creation(vms, f"{instance}_disk")
    vms.create(entry.draft, MIB)
    maker = client(entry.draft)
    assert maker.write("old") == "wrote"
    before = holders(vms, entry.draft), blocklist(ceph)
    if frozen:
        maker.signal(signal.SIGSTOP)
    fencing.fence_for_start(vms, instance)
    maker.signal(signal.SIGCONT)
    assert (holders(vms, entry.draft), blocklist(ceph)) == before
    assert not noted
    assert maker.write("more") == "wrote"


def test_lock_stays_if_its_owner_cannot_be_blocklisted(
    ceph, vms, name, client, noted
):
    dead = client(name)
    assert dead.write("old") == "wrote"
    dead.kill()
    before = blocklist(ceph)
    # A user that may write to the pool, but not to the blocklist.
    user = make_user(
        ceph, "nofence", mon="allow r", osd="profile rbd pool=vms"
    )
    unfit = Pool(connect(ceph, user), "vms")
    with pytest.raises(errors.NotPermitted, match="blocklist"):
        fencing.fence(unfit, {name: vms.directory.image_id(name)})
    (left,) = holders(vms, name)
    assert left.client_id == dead.client_id
    assert left.lock_cookie is not None
    assert blocklist(ceph) == before
    assert not noted


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:0/0", "[::1]:0/0", "127.0.0.1", "127.0.0.0/8", ""],
)
def test_address_of_no_single_client_is_not_blocklisted(ceph, vms, address):
    """Ceph takes nonce 0 for all clients of the host."""
    before = blocklist(ceph)
    try:
        with pytest.raises(errors.StorageFault, match="of one client"):
            vms.cluster.blocklist(address)
        assert blocklist(ceph) == before
    finally:
        with ceph.admin() as admin:
            for more in blocklist(ceph).keys() - before.keys():
                command(admin, "osd blocklist", blocklistop="rm", addr=more)


@pytest.fixture
def freeze_monitor(ceph):
    pids = {name: int(pid) for name, pid, _ in ceph.status()}
    yield lambda: freeze(pids["mon.a"])
    os.kill(pids["mon.a"], signal.SIGCONT)


def test_silent_monitors_keep_the_lock_from_being_broken(
    ceph, vms, name, client, freeze_monitor, monkeypatch, noted
):
    dead = client(name)
    assert dead.write("old") == "wrote"
    dead.kill()
    hasty = Pool(connect(ceph, operation_timeout_seconds=3), "vms")
    blocklist_in_time = hasty.cluster.blocklist

    def blocklist_as_they_fall_silent(address):
        blocklist_in_time(address)
        freeze_monitor()
        # librados waits for the new map at the end of its call, for ever.
        hasty.cluster.connection().handle.wait_for_latest_osdmap()

    monkeypatch.setattr(
        hasty.cluster, "blocklist", blocklist_as_they_fall_silent
    )
    began = time.monotonic()
    with pytest.raises(errors.OperationTimedOut):
        fencing.fence(hasty, {name: vms.directory.image_id(name)})
    assert 3 < time.monotonic() - began < 10
    (left,) = holders(vms, name)
    assert left.lock_cookie is not None
    assert not noted


@pytest.mark.parametrize(
    ("address", "msgr2_only"), [("127.0.0.1", True), ("::1", False)]
)
def test_other_networks(instance, client, address, msgr2_only):
    with started_ceph(address=address, msgr2_only=msgr2_only) as ceph:
        vms = Pool(connect(ceph), "vms")
        name = f"{instance}_disk"
        blank_disk(vms, name, MIB)
        check_frozen_client(vms, instance, name, client(name, ceph))
        vms.cluster.drop(vms.cluster.connection())
