# SPDX-License-Identifier: Apache-2.0

"""Uploads of snapshots by Nova's own Glance client that break off."""

import contextlib
import random
import subprocess
import uuid

import pytest

from tests.nova.virt.snapshot import glance_server

MIB = 1 << 20
CONTENT = random.Random(5).randbytes(9 * MIB)
DISK = CONTENT.ljust(16 * MIB, b"\0")


@pytest.fixture
def taken_snapshot(pools, tmp_path, monkeypatch):
    """Return a function that uploads a snapshot, with broken uploads first."""
    from nova import context, objects

    from nova_rbd_backend.virt.background import worker
    from nova_rbd_backend.virt.snapshot import glance, to_glance

    # No background work; the uploads are purged at the end.
    monkeypatch.setattr(worker.Background, "start", lambda self: None)
    offer = glance.offer
    monkeypatch.setattr(glance, "offer", lambda *_: False)
    objects.register_all()
    pools.conf(
        group="libvirt", snapshots_directory=str(tmp_path / "snapshots")
    )
    disk = f"{uuid.uuid4()}_disk"
    pools.vms.create(disk, 16 * MIB)
    with pools.vms.open(disk, read_only=False) as image:
        image.write(CONTENT, 0)
    instance = objects.Instance(
        uuid=disk.partition("_")[0],
        project_id="p" * 32,
        image_ref=str(uuid.uuid4()),
        system_metadata={},
    )
    user = context.RequestContext("user", "project", auth_token="token")

    made = []

    def make(image_format, *breaks):
        from nova_rbd_backend import names

        image_id = str(uuid.uuid4())
        made.append(f"snapshot_{image_id}")
        with glance_server.serving(image_id, *breaks) as server:
            pools.conf(group="glance", api_servers=[server.url], num_retries=3)
            make.server = server
            server.image |= make.known
            to_glance.ToGlance(
                user,
                instance,
                names.ImagePath("vms", "", disk),
                image_id,
                image_format,
            ).run()
        return server.data

    make.offer, make.known = offer, {}
    make.disks = lambda: pools.vms.directory.names(instance.uuid)
    yield make
    from nova_rbd_backend.virt import edge

    edge.store().delete(instance.uuid)
    edge.store().purge()
    assert not [name for name in made if pools.vms.directory.exists(name)]


BROKEN_OFF = [(6 * MIB, 503), (5 * MIB, None), (0, 503)]


@pytest.mark.parametrize("broken_off", BROKEN_OFF, ids=str)
def test_broken_upload_begins_anew(taken_snapshot, broken_off):
    data = taken_snapshot("raw", broken_off)
    assert data == DISK


def test_broken_upload_of_a_file_begins_anew(taken_snapshot, tmp_path):
    data = taken_snapshot("qcow2", (3 * MIB, 503), (MIB, 503))
    qcow2, raw = tmp_path / "uploaded.qcow2", tmp_path / "raw"
    qcow2.write_bytes(data)
    convert = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw"]
    subprocess.run([*convert, qcow2, raw], check=True)
    assert raw.read_bytes() == DISK


@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
def test_image_that_was_cut_short_is_deleted(taken_snapshot, image_format):
    """The HTTP client follows the redirect, with no data left to send."""
    from nova import exception

    with pytest.raises(exception.StorageError, match="Glance got 0 of"):
        taken_snapshot(image_format, (1 << 40, 307))
    assert taken_snapshot.server.image is None


def test_image_whose_uploads_all_fail_is_deleted(taken_snapshot):
    from nova import exception

    with pytest.raises(exception.GlanceConnectionFailed):
        taken_snapshot("raw", *[(MIB, 503)] * 4)
    assert taken_snapshot.server.image is None


def test_snapshot_that_glance_took_waits_for_no_long_job(
    taken_snapshot, pools, monkeypatch
):
    from nova_rbd_backend import threads
    from nova_rbd_backend.storage import journal
    from nova_rbd_backend.storage.snapshots import make
    from nova_rbd_backend.virt.snapshot import glance

    run, long_jobs = threads.run, []

    def noted_run(work, *args, long=False, **kwargs):
        long_jobs.append(long)
        return run(work, *args, long=long, **kwargs)

    def take(*_):
        monkeypatch.setattr(threads, "run", noted_run)
        return True

    monkeypatch.setattr(glance, "offer", take)

    taken_snapshot("raw")

    assert long_jobs == [False]
    (entry,) = journal.detachments(pools.vms)
    assert entry.offer is journal.Offer.ACCEPTED
    make.remove(pools.vms, entry)


def test_snapshot_whose_guest_was_thawed_too_early_leaves_nothing(
    taken_snapshot, pools, monkeypatch
):
    """The snap of the disk is gone before Nova gets the error."""
    from nova import exception

    from nova_rbd_backend.storage import journal
    from nova_rbd_backend.virt.snapshot import quiesce

    @contextlib.contextmanager
    def thawed_early():
        yield
        raise exception.InstanceQuiesceFailed(reason="it took too long")

    monkeypatch.setattr(quiesce, "frozen", thawed_early)

    with pytest.raises(exception.InstanceQuiesceFailed):
        taken_snapshot("raw")

    (disk,) = taken_snapshot.disks()
    with pools.vms.open(disk) as image:
        assert image.snaps() == ()
    assert journal.creations(pools.vms) == []
    assert journal.detachments(pools.vms) == []


def test_image_that_its_owner_has_filled_meanwhile(
    taken_snapshot, pools, monkeypatch
):
    """The snapshot would be kept for ever, and count for no quota."""
    from nova import exception

    from nova_rbd_backend.storage import journal
    from nova_rbd_backend.virt.snapshot import glance

    monkeypatch.setattr(glance, "offer", taken_snapshot.offer)
    taken_snapshot.known = {"status": "active", "size": 1}
    with pytest.raises(exception.StorageError, match="has got 1 bytes"):
        taken_snapshot("raw")
    assert taken_snapshot.server.image is None
    assert journal.detachments(pools.vms) == []
    assert pools.vms.directory.names("snapshot_") == []
