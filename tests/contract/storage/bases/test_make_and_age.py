# SPDX-License-Identifier: Apache-2.0

"""Bases are made once, cloned and aged out, and never cloned half made."""

import contextlib
import time
import uuid

import pytest

from nova_rbd_backend import errors, metadata, names
from nova_rbd_backend.ceph import lease, transfer
from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.bases import age
from nova_rbd_backend.storage.bases import make as bases
from nova_rbd_backend.storage.disks import delete, provision
from nova_rbd_backend.storage.images import discard, purge
from nova_rbd_backend.storage.images import draft as draft_

MIB = 1 << 20
FACTS = {"nova.image": "an image"}


@pytest.fixture
def name():
    return names.base_image(str(uuid.uuid4()), "a hash")


@pytest.fixture
def raw(tmp_path):
    path = tmp_path / "raw"
    with path.open("wb") as file:
        file.truncate(8 * MIB)
        file.seek(5 * MIB)
        file.write(b"of the image")
    return str(path)


@pytest.fixture
def turn(monkeypatch):
    """Return a function that makes the next ageing this host's turn."""

    def now():
        monkeypatch.setattr(age, "_TURN", uuid.uuid4().hex)

    return now


def make(pool, name, raw):
    making = bases.begin(pool, name)
    return bases.finish(pool, making, raw, FACTS, workers=2)


def clone(pool, name):
    disk = str(names.DiskName(str(uuid.uuid4()), "disk"))
    provision.clone_disk(pool, disk, bases.snap(pool, name), 16 * MIB)
    return disk


def drafts(pool, name):
    return [entry.draft for entry in journal.creations(pool, name)]


def test_base_is_made_once_and_cloned(pool, name, raw):
    assert bases.size_bytes(pool, name) is None
    made = make(pool, name, raw)
    assert made.size_bytes == 8 * MIB
    assert 0 < made.bytes_written < MIB
    assert bases.size_bytes(pool, name) == 8 * MIB
    assert bases.begin(pool, name) is None
    disk = clone(pool, name)
    with pool.open(disk) as opened:
        assert opened.read(5 * MIB, 12) == b"of the image"
        assert opened.parent().image == name
    with pool.open(name) as opened:
        assert opened.metadata().items() >= FACTS.items()
    assert drafts(pool, name) == []


def test_only_one_host_makes_a_base(pool, name, raw):
    making = bases.begin(pool, name)
    assert bases.begin(pool, name) is None
    bases.give_up(making)
    assert bases.size_bytes(pool, name) is None
    again = bases.begin(pool, name)
    bases.finish(pool, again, raw, FACTS)
    assert bases.size_bytes(pool, name) == 8 * MIB


def test_failed_copy_leaves_nothing(pool, name, raw, tmp_path):
    making = bases.begin(pool, name)
    with pytest.raises(FileNotFoundError):
        bases.finish(pool, making, str(tmp_path / "gone"), FACTS)
    assert pool.directory.names(name) == []
    assert drafts(pool, name) == []
    assert make(pool, name, raw).size_bytes == 8 * MIB


def test_two_makers_that_both_think_they_have_the_lease(
    pool, name, raw, monkeypatch
):
    """The first maker lost its lease unnoticed, and takes the other's base."""
    first = bases.begin(pool, name)
    directory = type(pool.directory)
    rename = directory.publish

    def publish(self, draft, image_id, published):
        monkeypatch.undo()
        entry = journal.begin_creation(pool, name)
        pool.create(entry.draft, MIB)
        with pool.open(entry.draft, read_only=False) as disk:
            disk.create_snap(bases.SNAP)
            theirs = disk.image_id
        facts = {metadata.LAST_USED: f"{time.time():.0f}"}
        pool.set_metadata(theirs, facts)
        rename(pool.directory, entry.draft, theirs, name)
        journal.end(pool, entry)
        rename(self, draft, image_id, published)

    monkeypatch.setattr(directory, "publish", publish)
    made = bases.finish(pool, first, raw, FACTS)
    assert made.size_bytes == MIB
    assert pool.directory.names(name) == [name]
    assert drafts(pool, name) == []


def test_draft_that_is_taken_over_before_the_copy(
    pool, name, raw, monkeypatch
):
    first = bases.begin(pool, name)
    create = type(pool).create

    def lose(self, draft, size_bytes):
        monkeypatch.undo()
        create(self, draft, size_bytes)
        draft_.settle_attempts(pool, name)

    monkeypatch.setattr(type(pool), "create", lose)
    with pytest.raises(errors.TakenOver) as caught:
        bases.finish(pool, first, raw, FACTS)
    assert caught.value.image == name
    assert pool.directory.names(name) == []
    assert make(pool, name, raw).size_bytes == 8 * MIB


def test_base_that_is_made_by_the_maker_that_took_over(
    pool, name, raw, monkeypatch
):
    """Our draft is gone, and the base of the other maker exists."""
    first = bases.begin(pool, name)
    create = type(pool).create

    def lose(self, draft, size_bytes):
        monkeypatch.undo()
        create(self, draft, size_bytes)
        draft_.settle_attempts(pool, name)
        theirs = bases.BaseAttempt(name, first.right, contextlib.ExitStack())
        bases.finish(pool, theirs, raw, FACTS)

    monkeypatch.setattr(type(pool), "create", lose)
    made = bases.finish(pool, first, raw, FACTS)
    assert (made.size_bytes, made.bytes_written) == (8 * MIB, 0)
    assert pool.directory.names(name) == [name]
    assert drafts(pool, name) == []


def test_maker_stops_when_its_lease_is_lost(pool, name, raw, monkeypatch):
    first, told = bases.begin(pool, name), []
    first.right.lost = True
    with pytest.raises(errors.TakenOver):
        bases.finish(pool, first, raw, FACTS, told.append)
    assert told == []

    # Lost during the copy: the lease is next checked when the copy ends.
    second = bases.begin(pool, name)
    read = transfer.nonzero_runs

    def lose(data):
        second.right.lost = True
        return read(data)

    monkeypatch.setattr(transfer, "nonzero_runs", lose)
    with pytest.raises(errors.TakenOver):
        bases.finish(pool, second, raw, FACTS, told.append)
    assert (told, drafts(pool, name)) == ([], [])
    assert make(pool, name, raw).size_bytes == 8 * MIB


def test_base_half_made_by_a_dead_host_is_made_again(pool, name, raw):
    entry = journal.begin_creation(pool, name)
    pool.create(entry.draft, MIB)
    assert bases.size_bytes(pool, name) is None
    assert make(pool, name, raw).size_bytes == 8 * MIB
    assert pool.directory.names(name) == [name]


def test_only_bases_without_clones_age_out(pool, name, raw, turn):
    unused = names.base_image(str(uuid.uuid4()), "")
    for base in (name, unused):
        make(pool, base, raw)
    disk = clone(pool, name)
    turn()
    found = age.age(pool, 3600, 60)
    assert unused not in found.removed
    assert found.in_use >= 1
    assert age.age(pool, 3600, 60) is None  # it is another host's turn
    turn()
    assert age.age(pool, None, 60).removed == ()
    turn()
    removed = age.age(pool, -1, 60).removed
    assert unused in removed
    assert name not in removed
    assert bases.size_bytes(pool, unused) is None
    pool.trash.move(disk)
    turn()
    # A disk in the trash may be restored.
    assert name not in age.age(pool, -1, 60).removed


def test_failure_of_one_base_does_not_keep_others_from_ageing(
    pool, name, raw, turn, monkeypatch
):
    broken = names.base_image(str(uuid.uuid4()), "")
    for base in (name, broken):
        make(pool, base, raw)
    broken_id = pool.directory.image_id(broken)
    headers = type(pool.headers)
    has_clones = headers.has_clones

    def fail(self, image_id):
        if image_id == broken_id:
            raise errors.StorageFault("unknown", image=broken)
        return has_clones(self, image_id)

    monkeypatch.setattr(headers, "has_clones", fail)
    turn()
    report = age.age(pool, -1, 60)
    assert name in report.removed
    assert [broken in why for why in report.failed] == [True]
    assert bases.size_bytes(pool, broken) is not None


def test_base_with_an_unreadable_date_ages_from_now(pool, name, raw, turn):
    make(pool, name, raw)
    image_id = pool.directory.image_id(name)
    pool.set_metadata(image_id, {metadata.LAST_USED: "yesterday"})
    turn()
    assert name not in age.age(pool, 0, 60).removed
    with pool.open(name) as disk:
        assert time.time() - int(disk.metadata()[metadata.LAST_USED]) < 60
    age.touch(pool, f"{name}-gone")


def test_base_that_is_cloned_as_it_ages_out(pool, name, raw, turn):
    make(pool, name, raw)
    disk = clone(pool, name)
    discard.discard(pool, name)
    report = purge.purge(pool)
    assert name in [kept.image for kept in report.waiting]
    assert name not in [kept.image for kept in report.stuck]
    with pool.open(disk) as opened:
        assert opened.read(5 * MIB, 12) == b"of the image"
    delete.delete_disk(pool, disk)
    purge.purge(pool)
    assert {t.name for t in pool.trash.entries()}.isdisjoint({name, disk})


def test_base_that_an_operator_moved_to_the_trash(pool, name, raw):
    make(pool, name, raw)
    disk = clone(pool, name)
    pool.trash.move(name)
    report = purge.purge(pool)
    assert name in [kept.image for kept in report.waiting]
    delete.delete_disk(pool, disk)
    purge.purge(pool)
    assert {t.name for t in pool.trash.entries()}.isdisjoint({name, disk})
    assert make(pool, name, raw).size_bytes == 8 * MIB


def test_clone_of_a_discarded_base(pool, name, raw):
    make(pool, name, raw)
    discard.discard(pool, name)
    with pytest.raises(errors.NotFound) as caught:
        clone(pool, name)
    assert caught.value.image == name


def test_ageing_undoes_drafts_of_dead_hosts(pool, name, raw, turn):
    alive = names.base_image(str(uuid.uuid4()), "")
    making = bases.begin(pool, alive)
    for base in (name, alive):
        entry = journal.begin_creation(pool, base)
        pool.create(entry.draft, MIB)
    turn()
    age.age(pool, None, 60)
    assert drafts(pool, name) == []
    assert pool.directory.names(name) == []
    assert len(drafts(pool, alive)) == 1
    again = bases.begin(pool, name)
    assert again is not None
    bases.give_up(again)
    bases.give_up(making)
    held = lease.take(pool, alive)
    held.end()
    draft_.settle_attempts(pool, alive)
