# SPDX-License-Identifier: Apache-2.0

"""One host looks at what all hosts have deleted; the others at their own."""

import contextlib
import dataclasses
import os
import socket
import uuid

import pytest

from nova_rbd_backend import names
from nova_rbd_backend.ceph import lease
from nova_rbd_backend.storage import due, journal
from nova_rbd_backend.storage import process as process_
from nova_rbd_backend.storage.images import discard, purge
from tests.testbed.process import wait_for

MIB = 1 << 20
PERIOD_SECONDS = 600


def _deleted(pool, name=None):
    name = name or str(names.DiskName(str(uuid.uuid4()), "disk"))
    pool.create(name, MIB)
    discard.discard(pool, name)
    return name


def _purge(pool):
    return purge.purge_by_turns(pool, PERIOD_SECONDS)


def test_host_without_the_turn_frees_what_it_has_deleted(host):
    first, second = host(), host()
    assert _purge(first).is_whole
    left, own = _deleted(first), _deleted(second)
    found = _purge(second)
    assert (found.purged, found.is_whole) == ((own,), False)
    assert _purge(first).purged == (left,)
    assert _purge(second).purged == ()


def test_idle_host_asks_for_creations_only(host, requests):
    """However many images are deleted, kept or waiting."""
    first, idle = host(), host()
    _deleted(first)
    with lease.turn(first, purge._TURN, PERIOD_SECONDS):
        _purge(idle)  # the first time it looks for its dead processes
        for _ in range(3):
            _deleted(first)
        count, found = requests(lambda: _purge(idle))
    assert found.purged == found.waiting == ()
    assert count == 1


def test_turn_of_a_dead_host_ends(host):
    """And what the dead host has deleted is freed by another one."""
    dead, other = host(), host()
    name = _deleted(dead)
    turn = ("its lease", 1, "dead host")
    assert dead.objects.lease(lease.OBJECT, purge._TURN, *turn)
    assert not _purge(other).is_whole
    reports = []

    def has_turn():
        reports.append(_purge(other))
        return reports[-1].is_whole

    wait_for("the lease has ended", has_turn, 20, 0.2)
    assert reports[-1].purged == (name,)


def test_turn_goes_on_while_something_is_left(host, monkeypatch):
    first, second = host(), host()
    disks = {_deleted(first) for _ in range(2)}
    whole = purge.purge
    with monkeypatch.context() as patched:
        patched.setattr(purge, "purge", lambda pool: whole(pool, max_images=1))
        found = _purge(first)
    assert found.left == 1
    assert {*found.purged, *_purge(second).purged} == disks


def test_parent_is_freed_with_its_last_clone(host):
    """By the host that has deleted the clone, without the turn."""
    first, second = host(), host()
    base = f"{names.BASE_PREFIX}{uuid.uuid4()}"
    first.create(base, MIB)
    with first.open(base, read_only=False) as image:
        image.create_snap("base")
    disks = [str(names.DiskName(str(uuid.uuid4()), "disk")) for _ in "ab"]
    for disk in disks:
        second.clone(second, base, "base", disk)
    discard.discard(first, base)
    assert [kept.image for kept in _purge(first).waiting] == [base]
    discard.discard(second, disks[0])
    assert _purge(second).purged == (disks[0],)
    assert due.keys(second, journal.DELETE)
    assert _purge(second).purged == ()
    assert not due.keys(second, journal.DELETE)
    discard.discard(second, disks[1])
    assert _purge(second).purged == (disks[1],)
    assert _purge(second).purged == (base,)
    assert not due.keys(second, journal.DELETE)


def test_parent_that_others_have_trashed_is_freed(host):
    """As Glance does with a snapshot that disks were booted from."""
    first, second = host(), host()
    assert _purge(first).is_whole
    snapshot = names.snapshot_image(str(uuid.uuid4()))
    first.create(snapshot, MIB)
    with first.open(snapshot, read_only=False) as image:
        image.create_snap("snap")
    disk = str(names.DiskName(str(uuid.uuid4()), "disk"))
    second.clone(second, snapshot, "snap", disk)
    first.trash.move(snapshot)
    discard.discard(second, disk)
    assert _purge(second).purged == (disk,)
    assert _purge(second).purged == (snapshot,)


@pytest.mark.parametrize("work", ["begun", "claimed"])
def test_restarted_host_frees_what_it_had_begun(host, work):
    first, restarted = host(), host()
    assert _purge(first).is_whole
    name = _left_by_a_dead_process(first, work)
    found = _purge(restarted)
    assert (found.purged, found.is_whole) == ((name,), False)


def test_hosts_that_start_together_search_one_by_one(host):
    """Each reads the deletions of all hosts, which may be kept for weeks."""
    first, restarted = host(), host()
    assert _purge(first).is_whole
    name = _left_by_a_dead_process(first, "begun")
    with lease.turn(first, f"{journal.DELETE}search", 0):
        assert _purge(restarted).purged == ()
    assert _purge(restarted).purged == (name,)


def _left_by_a_dead_process(pool, work):
    name = _deleted(pool)
    (entry,) = journal.deletions(pool)
    dead = dataclasses.replace(
        process_.this_process(), pid=_pid_of_nobody(), process=_of_nobody()
    )
    changes = {
        "begun": dataclasses.asdict(dead),
        "claimed": {
            "host": "elsewhere",
            "claim": str(dead),
            "claimed_until": entry.begun_at + 3600,
        },
    }
    assert journal._replaced(pool, entry, **changes[work])
    return name


def _pid_of_nobody():
    pid = 4_000_000  # the kernel gives none above 2 ** 22
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        pytest.fail(f"there is a process {pid}")
    return pid


def _of_nobody():
    assert socket.gethostname() == process_.this_process().host
    return process_.this_process().process.rpartition(".")[0] + ".1"


def test_image_that_is_stuck_stays_noted(host):
    first, second = host(), host()
    assert _purge(first).is_whole
    name = str(names.DiskName(str(uuid.uuid4()), "disk"))
    second.create(name, MIB)
    image_id = second.directory.image_id(name)
    with second.open(name, read_only=False) as image:
        image.create_snap("backup")
    discard.discard(second, name)
    for _ in range(2):
        assert [kept.image for kept in _purge(second).stuck] == [name]
    with second.open(image_id=image_id, read_only=False) as image:
        image.remove_snap("backup")
    assert _purge(second).purged == (name,)
