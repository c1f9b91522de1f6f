# SPDX-License-Identifier: Apache-2.0

"""Flows of a client on the blocklist, and flows while OSDs do not answer."""

import concurrent.futures
import contextlib
import os
import signal
import threading
import time
import uuid

import pytest
import rados

from nova_rbd_backend import errors, names
from nova_rbd_backend.ceph import lease as lease_
from nova_rbd_backend.ceph import transfer
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage import fencing, journal
from nova_rbd_backend.storage.bases import make as bases
from nova_rbd_backend.storage.disks import delete, provision
from nova_rbd_backend.storage.images import discard, draft, purge
from tests.support.blank_disks import blank_disk
from tests.support.clients import address, connect
from tests.support.clusters import started_ceph
from tests.testbed.ceph.pools import command
from tests.testbed.process import freeze, wait_for

pytestmark = pytest.mark.usefixtures("disks_deleted")
MIB = 1 << 20
LONGEST_PAUSE_SECONDS = 120


@pytest.fixture(scope="module")
def ceph():
    """A cluster for these tests only, as interrupted flows leave traces."""
    with started_ceph(watch_timeout_seconds=10) as cluster:
        yield cluster


@pytest.fixture
def told_often(monkeypatch):
    """Tell the progress of a copy before a quick machine is done with it."""
    monkeypatch.setattr(transfer, "_PROGRESS_SECONDS", 0.01)


def _cut_off(ceph, vms):
    """Blocklist this client, and wait until the OSDs refuse it."""
    # Another thread of the client may take a new connection meanwhile.
    connection = vms.cluster.connection()
    ioctx = connection.ioctx("vms", "")
    here = connection.handle.get_addrs()
    with ceph.admin() as admin:
        command(admin, "osd blocklist", blocklistop="add", addr=here)

    def refused():
        try:
            ioctx.stat("rbd_directory")
        except rados.ConnectionShutdown:
            return True
        return False

    wait_for("the client is refused", refused, 60, 0.02)


def test_blocklisted_client_recovers(ceph, parent, instance):
    vms = Pool(connect(ceph, connect_timeout_seconds=12), "vms")
    provision.clone_disk(vms, f"{instance}_disk", parent)
    old = address(vms.cluster)
    _cut_off(ceph, vms)
    facts = provision.clone_disk(vms, f"{instance}_disk.b", parent, 16 * MIB)
    assert facts.created
    assert address(vms.cluster) != old
    assert provision.is_whole(vms, f"{instance}_disk")


def test_blocklisted_during_an_import(ceph, instance, tmp_path, told_often):
    vms = Pool(connect(ceph, connect_timeout_seconds=13), "vms")
    path = tmp_path / "source.raw"
    path.write_bytes(os.urandom(64 * MIB))
    times = []

    def progress(done_bytes):
        if not times:
            times.append(done_bytes)
            _cut_off(ceph, vms)

    name = f"{instance}_disk"
    facts = provision.import_disk(
        vms, name, str(path), progress=progress, workers=1
    )
    assert times
    assert facts.created
    with vms.open(name) as disk:
        assert disk.read(0, 64 * MIB) == path.read_bytes()


def test_blocklisted_while_it_makes_a_base(
    ceph, tmp_path, monkeypatch, told_often
):
    """The maker learns that it was taken for dead, and can begin again."""
    monkeypatch.setattr(lease_, "SECONDS", 5)
    vms = Pool(connect(ceph, connect_timeout_seconds=14), "vms")
    path = tmp_path / "source.raw"
    path.write_bytes(os.urandom(64 * MIB))
    name = names.base_image(str(uuid.uuid4()), "")
    old = address(vms.cluster)

    def progress(_done_bytes):
        if address(vms.cluster) == old:
            _cut_off(ceph, vms)

    making = bases.begin(vms, name)
    with pytest.raises(errors.TakenOver):
        bases.finish(vms, making, str(path), {}, progress, workers=1)
    assert address(vms.cluster) != old
    assert vms.directory.names(name) == []
    # The lease of the lost connection ends by itself.
    again = wait_for(
        "the lease ends",
        lambda: bases.begin(vms, name),
        lease_.SECONDS + 5,
        0.5,
    )
    bases.finish(vms, again, str(path), {})
    with vms.open(name, snap=bases.SNAP) as disk:
        assert disk.read(0, 64 * MIB) == path.read_bytes()
    discard.discard(vms, name)


def _lost_once(ceph, vms, call):
    """Return a function whose first call finds its connection lost."""
    lost = []

    def lose(*args):
        if not lost:
            lost.append(address(vms.cluster))
            _cut_off(ceph, vms)
        return call(*args)

    return lose


def test_blocklisted_while_it_undoes_a_draft(ceph, instance, monkeypatch):
    """The purge goes on, over a new connection, in the same run."""
    vms = Pool(connect(ceph, connect_timeout_seconds=15), "vms")
    entry = journal.begin_creation(vms, f"{instance}_disk")
    vms.create(entry.draft, MIB)
    monkeypatch.setattr(purge, "settle", _lost_once(ceph, vms, purge.settle))
    report = purge.purge(vms)
    assert report.stuck == ()
    assert not vms.directory.exists(entry.draft)


def test_blocklisted_while_it_frees_an_image(ceph, instance, monkeypatch):
    vms = Pool(connect(ceph, connect_timeout_seconds=16), "vms")
    name = f"{instance}_disk"
    blank_disk(vms, name, MIB)
    delete.delete_disks(vms, instance)
    remove = _lost_once(ceph, vms, vms.trash.remove)
    monkeypatch.setattr(vms.trash, "remove", remove)
    report = purge.purge(vms)
    assert report.stuck == ()
    assert name in report.purged


@pytest.fixture
def paused(ceph):
    # A PG that is silent for longer than its read lease (16 s) is "laggy"
    # until a replica acknowledges a new lease. With one copy there is no
    # replica, and the PG's requests wait for ever (16.2.15).
    read_lease = {"var": "read_lease_interval", "val": "600"}
    with ceph.admin() as admin:
        for pool in ("vms", "images"):
            command(admin, "osd pool set", pool=pool, **read_lease)
    # librbd (16.2.15) once waited in the close of an image until the OSDs
    # answered again, longer than any of its time-outs.
    resumed = threading.Timer(LONGEST_PAUSE_SECONDS, ceph.resume_osds)
    resumed.start()
    yield ceph
    resumed.cancel()
    ceph.resume_osds()


@pytest.fixture
def silent_monitor(ceph):
    """Call it to freeze the monitor until the end of the test."""
    pids = {name: int(pid) for name, pid, _ in ceph.status()}
    yield lambda: freeze(pids["mon.a"])
    os.kill(pids["mon.a"], signal.SIGCONT)


def test_pool_that_only_silent_monitors_may_know(ceph, silent_monitor):
    """librados waits for their map for ever; pools that it knows are used."""
    here = connect(ceph, operation_timeout_seconds=3)
    assert Pool(here, "vms").directory.names("x") == []
    kept = here.connection()
    silent_monitor()
    unknown = Pool(here, "made-just-now").directory
    with concurrent.futures.ThreadPoolExecutor() as threads:
        asked = threads.submit(unknown.names, "x")
        began = time.monotonic()
        # Another thread needs an ioctx meanwhile.
        assert kept.ioctx("images", "")
        assert time.monotonic() - began < 2
        with pytest.raises(errors.OperationTimedOut, match="made-just-now"):
            asked.result(60)


def test_id_that_only_silent_monitors_may_know(ceph, silent_monitor):
    here = connect(ceph, operation_timeout_seconds=2)
    here.connection()
    silent_monitor()
    with pytest.raises(errors.OperationTimedOut):
        here.pool_name(4711)


def _answers(vms, name):
    with contextlib.suppress(errors.OperationTimedOut):
        vms.set_metadata(vms.directory.image_id(name), {"alive": "yes"})
        return True
    return False


def test_paused_osds_end_an_operation(paused, parent, instance, tmp_path):
    vms = Pool(connect(paused, operation_timeout_seconds=2), "vms")
    path = tmp_path / "source.raw"
    path.write_bytes(os.urandom(8 * MIB))
    name = f"{instance}_disk"
    blank_disk(vms, name, 4 * MIB)
    flows = {
        "is_whole": lambda: provision.is_whole(vms, name),
        "clone": lambda: provision.clone_disk(vms, f"{name}.c", parent),
        "import": lambda: provision.import_disk(vms, f"{name}.i", str(path)),
        "grow": lambda: provision.grow(vms, name, 8 * MIB),
        "delete": lambda: delete.delete_disks(vms, instance),
        "purge": lambda: purge.purge(vms),
    }
    for title, flow in flows.items():
        # Pause anew for each flow: OSDs that are silent for 20 s are marked
        # down (osd_heartbeat_grace).
        paused.pause_osds()
        begun = time.monotonic()
        with pytest.raises(errors.OperationTimedOut):
            flow()
        took = time.monotonic() - begun
        paused.resume_osds()
        wait_for("the OSDs answer", lambda: _answers(vms, name), 60)
        print(f"\n{title}: given up after {took:.1f} s (limit 2 s)", end="")
        assert took < 10
    assert provision.clone_disk(vms, f"{name}.c", parent).created
    assert provision.grow(vms, name, 8 * MIB)


@pytest.fixture
def hasty(paused):
    return connect(
        paused, connect_timeout_seconds=17, operation_timeout_seconds=2
    )


# librbd may leave an image locked when it could not close it. It breaks no
# lock of its own client: each write fails with EINVAL (16.2).


def test_time_out_ends_the_connection(paused, hasty, instance):
    """librbd opens and closes the image by itself."""
    vms = Pool(hasty, "vms")
    blank_disk(vms, f"{instance}_disk", MIB)
    old = address(hasty)
    paused.pause_osds()
    with pytest.raises(errors.OperationTimedOut):
        vms.remove(f"{instance}_disk")
    paused.resume_osds()
    assert address(hasty) != old


def test_time_out_of_a_close_ends_the_connection(paused, hasty, instance):
    """When the OSDs go on, they do what they were asked to do.

    So nobody holds the disk.
    """
    vms = Pool(hasty, "vms")
    blank_disk(vms, f"{instance}_disk", MIB)
    old = address(hasty)

    def write():
        with vms.open(f"{instance}_disk", read_only=False) as disk:
            disk.write(b"whole", 0)
            disk.flush()
            paused.pause_osds()

    with pytest.raises(errors.OperationTimedOut, match="close"):
        write()
    paused.resume_osds()
    assert address(hasty) != old
    name = f"{instance}_disk"
    wait_for("the OSDs answer", lambda: _answers(vms, name), 60)
    assert fencing.ready_for_start(vms, instance)
    delete.delete_disks(vms, instance, busy_limit_seconds=0)


def test_time_out_is_not_followed_by_others(
    paused, hasty, tmp_path, told_often, monkeypatch
):
    """Nobody tries to undo the draft or to end the lease."""
    vms = Pool(hasty, "vms")
    path = tmp_path / "source.raw"
    path.write_bytes(os.urandom(64 * MIB))
    name = names.base_image(str(uuid.uuid4()), "")
    tried = []
    making = bases.begin(vms, name)
    monkeypatch.setattr(draft, "settle", lambda *_: tried.append("settle"))
    monkeypatch.setattr(
        vms.objects, "end_lease", lambda *_: tried.append("end")
    )
    with pytest.raises(errors.OperationTimedOut):
        bases.finish(
            vms, making, str(path), {}, lambda _: paused.pause_osds(), 1
        )
    paused.resume_osds()
    assert tried == []
    monkeypatch.undo()
    wait_for("the lease ends", lambda: bases.begin(vms, name), 60, 0.5)


def test_osds_paused_during_an_import(paused, instance, tmp_path, told_often):
    """The import is given up in time, and the next one succeeds."""
    vms = Pool(connect(paused, operation_timeout_seconds=2), "vms")
    path = tmp_path / "source.raw"
    path.write_bytes(os.urandom(64 * MIB))
    name = f"{instance}_disk"

    def progress(done_bytes):
        paused.pause_osds()

    begun = time.monotonic()
    with pytest.raises(errors.OperationTimedOut):
        provision.import_disk(vms, name, str(path), progress=progress)
    print(f"\nimport: given up after {time.monotonic() - begun:.1f} s")
    paused.resume_osds()
    assert not provision.is_whole(vms, name)
    assert provision.import_disk(vms, name, str(path)).created
    with vms.open(name) as disk:
        assert disk.read(0, 64 * MIB) == path.read_bytes()
