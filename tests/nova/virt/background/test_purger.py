# SPDX-License-Identifier: Apache-2.0

"""What the purger logs, and when it asks to be called again."""

import dataclasses
import logging

import pytest

MIB = 1 << 20
REASON = "has snaps backup"


@pytest.fixture
def purged(pools):
    """Return a function that purges once; nothing is left after the test."""
    from nova_rbd_backend.storage.images import purge
    from nova_rbd_backend.virt.background import purger

    purge.purge(pools.vms)
    yield purger._purge_once
    assert purge.purge(pools.vms).stuck == ()


def _began(pool, entry, seconds_ago):
    from nova_rbd_backend.storage import journal

    changed = dataclasses.replace(
        entry, begun_at=entry.begun_at - seconds_ago, host="elsewhere"
    ).encoded()
    assert pool.objects.omap_swap(
        journal.OBJECT, entry.key, entry.stored, changed.stored
    )
    return changed


def _levels(caplog, text):
    return {r.levelno for r in caplog.records if text in r.getMessage()}


@pytest.fixture
def hold(pools, instance):
    """Return a function that deletes a disk that has somebody else's snap.

    It returns the entry of the deletion.
    """
    from nova_rbd_backend.storage import journal
    from nova_rbd_backend.storage.disks import delete

    vms, name, image_ids = pools.vms, f"{instance.uuid}_disk", []

    def hold():
        vms.create(name, MIB)
        image_ids.append(vms.directory.image_id(name))
        with vms.open(name, read_only=False) as disk:
            disk.create_snap("backup")
        delete.delete_disks(vms, instance.uuid)
        return journal.deletion(vms, image_ids[-1])

    yield hold
    for image_id in image_ids:
        with vms.open(image_id=image_id, read_only=False) as disk:
            disk.remove_snap("backup")


@pytest.fixture
def held(hold):
    return hold()


def test_disk_that_was_just_deleted_is_tried_again_soon(purged, held, caplog):
    caplog.set_level(logging.INFO)
    assert not purged()
    text = f"Deleted disk {held.image} (image id {held.image_id}) still takes"
    assert _levels(caplog, text) == {logging.INFO}
    assert REASON in caplog.text


def test_disk_that_stays_is_an_error(pools, purged, held, caplog):
    from nova_rbd_backend.virt.background import purger

    _began(pools.vms, held, purger.PATIENCE_SECONDS)
    for _ in range(3):
        assert purged()
    text = f"Deleted disk {held.image} (image id {held.image_id}) still takes"
    (said,) = [r for r in caplog.records if text in r.getMessage()]
    assert said.levelno == logging.ERROR
    assert REASON in said.getMessage()


def test_disk_becomes_an_error_once(pools, purged, held, caplog):
    from nova_rbd_backend.virt.background import purger

    caplog.set_level(logging.INFO)
    for _ in range(2):
        purged()
    _began(pools.vms, held, purger.PATIENCE_SECONDS)
    for _ in range(2):
        purged()
    text = f"Deleted disk {held.image} (image id {held.image_id}) still takes"
    found = [r.levelno for r in caplog.records if text in r.getMessage()]
    assert found == [logging.INFO, logging.ERROR]


def test_two_disks_of_one_name_are_two_states(pools, purged, hold, caplog):
    """Of a server that was rebuilt twice."""
    from nova_rbd_backend.virt.background import purger

    _began(pools.vms, hold(), purger.PATIENCE_SECONDS)
    hold()
    caplog.set_level(logging.INFO)
    for _ in range(3):
        purged()
    found = [r for r in caplog.records if "still takes" in r.getMessage()]
    assert [r.levelno for r in found] == [logging.ERROR, logging.INFO]


def test_wrong_clock_is_an_error(pools, purged, instance, monkeypatch, caplog):
    from nova_rbd_backend.ceph import clock
    from nova_rbd_backend.storage.disks import delete
    from nova_rbd_backend.storage.images import purge

    name = f"{instance.uuid}_disk"
    pools.vms.create(name, MIB)
    image_id = pools.vms.directory.image_id(name)
    delete.delete_disks(pools.vms, instance.uuid, retention_seconds=3600)
    text = "Disks may stay in the trash for too long: this host's clock"
    assert purged()
    assert not _levels(caplog, text)
    monkeypatch.setattr(clock, "TOLERATED_SECONDS", -1.0)
    assert purged()
    assert _levels(caplog, text) == {logging.ERROR}
    purge.purge_one(pools.vms, name, image_id, force=True)


@pytest.fixture
def long_creation(pools, instance):
    """The entry of a disk that another host has made for more than a day."""
    from nova_rbd_backend.storage import journal

    entry = journal.begin_creation(pools.vms, f"{instance.uuid}_disk")
    changed = _began(pools.vms, entry, 25 * 3600)
    yield changed
    journal.end(pools.vms, changed)


def test_creation_that_takes_long_is_no_deleted_disk(
    purged, long_creation, caplog
):
    assert purged()
    text = f"Draft {long_creation.draft} still takes space, after"
    assert _levels(caplog, text) == {logging.ERROR}
    assert "elsewhere may still be making an image of it" in caplog.text
    assert "Deleted disk" not in caplog.text


def test_run_that_ends_at_a_limit_is_followed_by_another(
    pools, purged, instance, monkeypatch
):
    import functools

    from nova_rbd_backend.storage.disks import delete
    from nova_rbd_backend.storage.images import purge

    for disk in ("disk", "disk.swap"):
        pools.vms.create(f"{instance.uuid}_{disk}", MIB)
    delete.delete_disks(pools.vms, instance.uuid)
    limited = functools.partial(purge.purge, max_images=1)
    with monkeypatch.context() as patched:
        patched.setattr(purge, "purge", limited)
        assert not purged()
    assert purged()


def test_purge_without_ceph_is_tried_again(pools, tmp_path, caplog):
    from nova_rbd_backend.virt.background import purger

    deaf = tmp_path / "deaf.conf"
    deaf.write_text("[global]\nmon_host = v1:127.0.0.1:1\n")
    pools.conf(group="libvirt", images_rbd_ceph_conf=str(deaf))
    pools.conf(group="libvirt", rbd_connect_timeout=1)
    assert not purger._purge_once()
    assert _levels(caplog, "Deleted disks were not purged: ") == {
        logging.ERROR
    }


def test_disk_that_another_process_frees_keeps_its_state(
    pools, purged, held, caplog
):
    from nova_rbd_backend.storage import journal

    entry = _began(pools.vms, held, 1000)
    purged()
    with journal.claimed(pools.vms, entry, 60):
        purged()
    purged()
    told = [r for r in caplog.records if held.image_id in r.getMessage()]
    assert [r.levelname for r in told] == ["ERROR"]
