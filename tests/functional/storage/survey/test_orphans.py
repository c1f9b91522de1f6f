# SPDX-License-Identifier: Apache-2.0

"""Disks that no instance owns, on a real Ceph; for Nova see tests/e2e."""

import datetime
import signal
import uuid

import pytest

from nova_rbd_backend import errors
from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.images import purge
from nova_rbd_backend.storage.survey import orphans
from nova_rbd_backend.storage.survey.orphans import OrphanState
from tests.support.blank_disks import blank_disk
from tests.support.clients import holders
from tests.support.old_images import make_old
from tests.support.shifted_clock import Clock

MIB = 1 << 20
DAY = 24 * 3600


@pytest.fixture
def name(vms, instance, disks_deleted):
    """A disk of the instance that was last used a week ago."""
    name = f"{instance}_disk"
    blank_disk(vms, name, MIB)
    used_before(vms, name, 7 * DAY)
    return name


def used_before(pool, name, seconds):
    make_old(pool, pool.directory.image_id(name), seconds)


def survey(pool, instance, older_than=DAY):
    images = orphans.content(pool).disks[instance]
    return orphans.judge(pool, images, older_than)


def trashed(pool, name):
    return [each for each in pool.trash.entries() if each.name == name]


def forget(pool, name):
    """Purge every trashed image of this name."""
    for each in trashed(pool, name):
        purge.purge_one(pool, name, each.image_id, force=True)


def test_old_disk(vms, instance, name):
    (found,) = survey(vms, instance)

    assert (found.state, found.reason) == (OrphanState.ORPHAN, None)
    assert found.disk.name == name
    assert found.created_at == found.used_at


def test_age_counts_from_the_last_use(vms, instance, name):
    (found,) = survey(vms, instance, older_than=8 * DAY)
    assert found.state is OrphanState.YOUNG

    with vms.open(name, read_only=False) as disk:
        disk.write(b"data", 0)

    (found,) = survey(vms, instance)
    assert found.state is OrphanState.YOUNG
    assert found.used_at - found.created_at > datetime.timedelta(days=6)

    used_before(vms, name, 7 * DAY)
    with vms.open(name) as disk:
        assert disk.size_bytes()
    (found,) = survey(vms, instance)
    assert found.state is OrphanState.ORPHAN

    with vms.open(name) as disk:
        disk.read(0, 4)
    (found,) = survey(vms, instance)
    assert found.state is OrphanState.YOUNG


def test_age_counts_by_the_clock_of_the_cluster(
    ceph, vms, instance, disks_deleted, tmp_path
):
    blank_disk(vms, f"{instance}_disk", MIB)
    wrong = Clock(tmp_path, 2 * DAY)
    assert wrong.run("judge", ceph, instance, DAY) == [OrphanState.YOUNG]


def test_disks_of_an_instance_go_together(vms, instance, name):
    swap = f"{instance}_disk.swap"
    blank_disk(vms, swap, MIB)

    disk, young = survey(vms, instance)

    assert (disk.state, young.state) == (OrphanState.YOUNG, OrphanState.YOUNG)
    assert swap in disk.reason


@pytest.mark.parametrize("how", [signal.SIGCONT, signal.SIGSTOP])
def test_disk_with_a_holder(vms, instance, name, client, how):
    """The holder is a living client, or a frozen one that has the lock."""
    holder = client(name)
    assert holder.write("data") == "wrote"
    used_before(vms, name, 7 * DAY)
    image_id = vms.directory.image_id(name)
    holder.signal(how)

    (found,) = survey(vms, instance)

    assert found.state is OrphanState.IN_USE
    assert f"client.{holder.client_id}" in found.reason
    with pytest.raises(errors.DiskBusy):
        orphans.quarantine(vms, name, image_id, DAY)
    assert vms.directory.image_id(name) == image_id
    assert not trashed(vms, name)
    assert holders(vms, name), "a client was fenced"
    holder.signal(signal.SIGCONT)
    assert holder.write("more") == "wrote"


def test_images_that_are_not_novas(vms, instance, name):
    nova = ("disk.local", "disk.eph0", "disk.swap", "disk.config.rescue")
    others = (f"{instance}_disk.old", f"volume-{uuid.uuid4()}", "mine")
    before = orphans.content(vms).strangers
    for each in nova:
        blank_disk(vms, f"{instance}_{each}", MIB)
    for each in others:
        vms.create(each, MIB)
    try:
        content = orphans.content(vms)
    finally:
        for each in others:
            vms.remove(each)

    assert set(content.disks[instance]) == {
        name,
        *(f"{instance}_{each}" for each in nova),
    }
    assert content.strangers == before + len(others)


def test_half_made_disks_are_left_to_the_purge(vms, instance):
    vms.create(f"{instance}_disk.nova-rbd-draft-0123456789ab", MIB)
    try:
        assert instance not in orphans.content(vms).disks
    finally:
        vms.remove(f"{instance}_disk.nova-rbd-draft-0123456789ab")


def test_quarantine_and_back(vms, nova_rbd, instance, name):
    image_id = vms.directory.image_id(name)
    with vms.open(name, read_only=False) as disk:
        disk.write(b"mine", 0)
        disk.create_snap("nova-resize")
        disk.create_snap("an operator's")
    try:
        orphans.quarantine(vms, name, image_id, 14 * DAY)
        orphans.quarantine(vms, name, image_id, 14 * DAY)  # done already

        assert not vms.directory.exists(name)
        (row,) = nova_rbd.json("trash", "list", "--instance", instance)
        assert (row["Name"], row["State"]) == (name, "kept")
        until = datetime.datetime.fromisoformat(row["Kept until"])
        left = until - datetime.datetime.now(datetime.UTC)
        assert datetime.timedelta(days=13) < left
        purge.purge(vms)
        assert trashed(vms, name)

        nova_rbd.json("trash", "restore", name)

        assert vms.directory.image_id(name) == image_id
        assert journal.deletion(vms, image_id) is None
        with vms.open(name, read_only=False) as disk:
            assert disk.read(0, 4) == b"mine"
            assert len(disk.snaps()) == 2
            disk.remove_snap("an operator's")
    finally:
        forget(vms, name)


def test_name_belongs_to_another_disk_now(vms, name):
    old = vms.directory.image_id(name)
    vms.remove(name)
    blank_disk(vms, name, MIB)

    with pytest.raises(errors.ImageNotFound):
        orphans.quarantine(vms, name, old, DAY)

    assert vms.directory.exists(name)


def test_name_belongs_to_another_disk_once_the_holders_are_known(
    vms, name, monkeypatch
):
    """To find out takes 2 s if one of them is dead."""
    old = vms.directory.image_id(name)
    holders_of = orphans.holders.holders_of

    def holders_of_as_another_replaces_it(*images):
        found = holders_of(*images)
        vms.trash.move(name)
        blank_disk(vms, name, MIB)
        return found

    monkeypatch.setattr(
        orphans.holders, "holders_of", holders_of_as_another_replaces_it
    )
    try:
        orphans.quarantine(vms, name, old, DAY)
        assert vms.directory.exists(name)
        assert [each.image_id for each in trashed(vms, name)] == [old]
    finally:
        forget(vms, name)


@pytest.fixture
def no_nova(monkeypatch):
    """The login of a cloud that does not answer."""
    for key, value in {
        "AUTH_URL": "http://127.0.0.1:1/v3",
        "USERNAME": "admin",
        "PASSWORD": "not-to-be-seen",
        "PROJECT_NAME": "admin",
        "USER_DOMAIN_ID": "default",
        "PROJECT_DOMAIN_ID": "default",
    }.items():
        monkeypatch.setenv(f"OS_{key}", value)


def test_no_orphans_without_an_answer_of_nova(nova_rbd, name, no_nova):
    for more in ((), ("--quarantine",)):
        said = nova_rbd.refused("orphans", "--older-than", "0s", *more)
        assert "no login at cloud OS_*" in said
        assert "not-to-be-seen" not in said


def test_no_orphans_without_a_login(nova_rbd, name, monkeypatch, tmp_path):
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "none.yaml"))
    assert "no login at cloud" in nova_rbd.refused("orphans")
    assert "nowhere" in nova_rbd.refused("orphans", "--os-cloud", "nowhere")


def test_quarantine_is_kept_for_a_day_at_least(nova_rbd, no_nova):
    said = nova_rbd.refused("orphans", "--quarantine", "--keep", "0s")
    assert "--keep is below 1d" in said
