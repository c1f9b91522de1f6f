# SPDX-License-Identifier: Apache-2.0

"""What becomes of a snapshot whose maker died after it asked Glance."""

import dataclasses
import types
import uuid

import pytest

MIB = 1 << 20


@pytest.fixture
def left(pools, monkeypatch):
    """Return a function that makes such a snapshot, of a given age."""
    from nova_rbd_backend import metadata
    from nova_rbd_backend.storage import journal
    from nova_rbd_backend.storage.disks import delete
    from nova_rbd_backend.storage.images import discard, purge
    from nova_rbd_backend.storage.snapshots import make as snapshots
    from nova_rbd_backend.virt.background import worker

    monkeypatch.setattr(worker.Background, "start", lambda self: None)
    vms, instance = pools.vms, str(uuid.uuid4())
    vms.create(f"{instance}_disk", MIB)

    def make(age_seconds):
        making = snapshots.begin(
            vms, vms, f"{instance}_disk", str(uuid.uuid4())
        )
        snapshots.snap(making)
        facts = {metadata.INSTANCE: instance}
        made = snapshots.publish(vms, making, facts).detachment
        asked = journal.record_offer(vms, made, journal.Offer.UNDER_WAY)
        entry = dataclasses.replace(
            asked, begun_at=asked.begun_at - age_seconds
        ).encoded()
        assert vms.objects.omap_swap(
            journal.OBJECT, entry.key, asked.stored, entry.stored
        )
        return entry

    yield make
    for entry in journal.detachments(vms):
        snapshots.remove(vms, entry)
    for name in vms.directory.names("snapshot_"):
        discard.discard(vms, name)
    delete.delete_disks(vms, instance)
    purge.purge(vms)
    purge.purge(vms)


@pytest.fixture
def glance_says(monkeypatch):
    """Return a function that sets what Glance says of each image."""

    def says(known):
        from nova_rbd_backend.virt.snapshot import glance

        asked = []

        def knows(image_id, size_bytes):
            asked.append(image_id)
            if isinstance(known, Exception):
                raise known
            return known

        monkeypatch.setattr(glance, "knows", knows)
        return asked

    return says


@pytest.fixture
def instances(monkeypatch):
    """The UUIDs of this cell's instances, in place of Nova's database."""
    from nova import exception, objects

    objects.register_all()
    known = set()

    def get_by_uuid(context, uuid):
        if uuid not in known:
            raise exception.InstanceNotFound(instance_id=uuid)
        return types.SimpleNamespace(uuid=uuid)

    monkeypatch.setattr(objects.Instance, "get_by_uuid", get_by_uuid)
    return known


def of_this_cell(pools, instances, entry):
    from nova_rbd_backend import metadata

    facts = pools.vms.headers.metadata(entry.image_id)
    instances.add(facts[metadata.INSTANCE])


def exists(pools, entry):
    return pools.vms.directory.listed_id(entry.image) == entry.image_id


def test_glance_has_time_to_take_it(pools, left, glance_says, instances):
    """It may be at work on the location that the dead process gave it."""
    from nova_rbd_backend.virt.snapshot import detacher, glance

    entry = left(glance.ANSWER_SECONDS - 10)
    of_this_cell(pools, instances, entry)
    asked = glance_says(False)
    assert not detacher._detach_once()
    assert exists(pools, entry)
    assert asked == []


def test_unknown_snapshot_is_removed_after_that(
    pools, left, glance_says, instances
):
    from nova_rbd_backend import names
    from nova_rbd_backend.virt.snapshot import detacher, glance

    entry = left(glance.ANSWER_SECONDS + 1)
    of_this_cell(pools, instances, entry)
    asked = glance_says(False)
    assert detacher._detach_once()
    assert not exists(pools, entry)
    assert asked == [names.glance_id(entry.image)]


def told(caplog, entry):
    """Return what was logged about a snapshot that stays."""
    text = f"Snapshot vms/{entry.image}, left by {entry.host}, stays: "
    found = [r.getMessage() for r in caplog.records if r.levelno >= 30]
    return [m.removeprefix(text) for m in found if m.startswith(text)]


@pytest.mark.parametrize(
    ("known", "why", "again_soon"),
    [
        ("no admin", "Give that user this role", False),
        ("no answer", "Glance cannot be asked whether it has image", True),
        (None, "'openstack image delete {image}'", True),
        (False, "not in this cell's database", False),
    ],
)
def test_snapshot_in_doubt_stays(
    pools, left, glance_says, instances, caplog, known, why, again_soon
):
    from nova_rbd_backend import names
    from nova_rbd_backend.virt.snapshot import detacher, glance

    doubts = {"no admin": glance.NoAdmin, "no answer": glance.CannotAsk}
    entry = left(glance.ANSWER_SECONDS + 1)
    glance_says(doubts[known](known) if known in doubts else known)
    for _ in range(3):
        assert detacher._detach_once() != again_soon
    assert exists(pools, entry)
    # Once, as nothing has changed.
    (said,) = told(caplog, entry)
    image = names.glance_id(entry.image)
    assert image in said
    assert why.format(image=image) in said


def test_doubt_that_changes_is_told_again(
    pools, left, glance_says, instances, caplog
):
    from nova_rbd_backend.virt.snapshot import detacher, glance

    entry = left(glance.ANSWER_SECONDS + 1)
    glance_says(None)
    detacher._detach_once()
    glance_says(glance.CannotAsk("down"))
    detacher._detach_once()
    glance_says(None)
    detacher._detach_once()
    assert len(told(caplog, entry)) == 3
    of_this_cell(pools, instances, entry)
    glance_says(False)
    assert detacher._detach_once()
    assert not exists(pools, entry)


def test_known_snapshot_is_detached(pools, left, glance_says, instances):
    from nova_rbd_backend.virt.snapshot import detacher, glance

    entry = left(glance.ANSWER_SECONDS + 1)
    glance_says(True)
    assert detacher._detach_once()
    assert exists(pools, entry)
    assert pools.vms.parent_of(entry.image_id) is None


def test_run_that_others_keep_from_its_work_ends_no_state(
    pools, left, glance_says, caplog, monkeypatch
):
    """A snapshot that cannot be detached is reported once."""
    from nova_rbd_backend import errors
    from nova_rbd_backend.storage.snapshots import detach
    from nova_rbd_backend.virt.snapshot import detacher, glance

    pools.conf(group="nova_rbd", detach_at_once=1)
    entries = [left(glance.ANSWER_SECONDS + 1) for _ in range(2)]
    glance_says(True)

    def fail(_pool, entry):
        raise errors.HasSnaps(operation="detach", image=entry.image)

    monkeypatch.setattr(detach, "detach", fail)
    assert not detacher._detach_once()
    with detach.slot(pools.vms, 1) as has_slot:
        assert has_slot
        assert not detacher._detach_once()
    assert not detacher._detach_once()
    for entry in entries:
        said = [r for r in caplog.records if entry.image in r.getMessage()]
        assert [r.levelname for r in said] == ["ERROR"]
