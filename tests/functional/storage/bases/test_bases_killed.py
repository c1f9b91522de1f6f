# SPDX-License-Identifier: Apache-2.0

"""A process may die at any step of making a base; the next one makes it."""

import random
import subprocess
import time
import uuid

import pytest

from nova_rbd_backend import names
from nova_rbd_backend.ceph import lease
from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.bases import age as age_
from nova_rbd_backend.storage.bases import make as bases
from nova_rbd_backend.storage.images import draft, purge
from tests.support import readers, storage_child
from tests.support.clients import in_threads
from tests.support.clusters import wait_for_dead_clients
from tests.testbed.process import wait_for

MIB = 1 << 20


def _objects(ceph):
    with ceph.admin() as admin:
        ioctx = admin.open_ioctx("vms")
        return {entry.key for entry in ioctx.list_objects()}


@pytest.fixture
def age(vms, monkeypatch):
    """The periodic run that ages bases; every run is this host's turn."""

    def now(unused_seconds):
        monkeypatch.setattr(age_, "_TURN", uuid.uuid4().hex)
        return age_.age(vms, unused_seconds, 1)

    return now


def _check_whole(vms, name, content):
    with vms.open(name, snap=bases.SNAP) as base:
        assert base.size_bytes() == len(content)
        assert base.read(0, len(content)) == content


@pytest.fixture
def content():
    return random.Random(3).randbytes(6 * MIB)


@pytest.fixture
def raw(tmp_path, content):
    path = tmp_path / "source.raw"
    path.write_bytes(content)
    return str(path)


@pytest.fixture
def qcow2(raw):
    """The same disk in qcow2."""
    path = raw.replace(".raw", ".qcow2")
    command = ["qemu-img", "convert", "-O", "qcow2", raw, path]
    subprocess.run(command, check=True, timeout=60)
    return path


@pytest.mark.parametrize(
    ("flow", "form"),
    [("base of qcow2", "qcow2"), ("base of bytes that come", "raw")],
)
def test_each_step_without_a_raw_file(
    forks, ceph, vms, raw, qcow2, content, flow, form
):
    def prepare():
        path = raw if form == "raw" else qcow2
        return names.base_image(str(uuid.uuid4()), ""), path

    killed = storage_child.kill_at_each_step(forks, ceph, flow, prepare)
    # Some have died just as they had opened the draft.
    wait_for_dead_clients(ceph, "vms")
    whole = [_made_again(vms, entry, qcow2, content) for entry in killed]
    assert not whole[0]
    assert whole[-1]


def _made_again(vms, entry, qcow2, content):
    step, name = entry
    whole = bases.size_bytes(vms, name) is not None
    if not whole and step % 2:
        found = wait_for(
            "the dead process's lease ends",
            lambda: bases.begin(vms, name) or bases.size_bytes(vms, name),
            lease.SECONDS,
        )
        if isinstance(found, bases.BaseAttempt):
            packed = draft.Packed("qcow2", len(content))
            bases.finish(vms, found, qcow2, {}, packed=packed)
    if whole or step % 2:
        _check_whole(vms, name, content)
    return whole


def test_killed_while_qemu_img_writes(
    forks, ceph, vms, qcow2, content, tmp_path
):
    name = names.base_image(str(uuid.uuid4()), "")
    begun = tmp_path / "begun"
    maker = forks.start(
        storage_child.pause_in_copy,
        *(str(ceph.conf), name, qcow2, str(begun)),
    )
    try:
        wait_for("the conversion begins", begun.exists, 60)
        ceph.pause_osds()
        begun.unlink()
        wait_for("qemu-img runs", lambda: readers.of_file(qcow2), 30)
    finally:
        maker.kill()
        ceph.resume_osds()
    maker.wait(30)
    wait_for("qemu-img has ended", lambda: not readers.of_file(qcow2), 30)
    assert bases.size_bytes(vms, name) is None
    assert _made_again(vms, (1, name), qcow2, content) is False
    assert journal.creations(vms, name) == []


def test_each_step(forks, ceph, vms, raw, content, age):
    def prepare():
        return names.base_image(str(uuid.uuid4()), ""), raw

    age(-1)  # removes bases that other tests have left
    before = _objects(ceph)
    killed = storage_child.kill_at_each_step(forks, ceph, "base", prepare)

    def make_again(entry):
        step, name = entry
        whole = bases.size_bytes(vms, name) is not None
        if whole:
            _check_whole(vms, name, content)
        elif step % 2:
            # The base is made again, or, if the dead process had everything
            # but its name done, it gets its name.
            found = wait_for(
                "the dead process's lease ends",
                lambda: bases.begin(vms, name) or bases.size_bytes(vms, name),
                lease.SECONDS,
            )
            if isinstance(found, bases.BaseAttempt):
                bases.finish(vms, found, raw, {})
            _check_whole(vms, name, content)
        return whole

    whole = in_threads(make_again, killed)
    print(f"\nbase: {len(killed)} steps, whole after {sum(whole)}")
    assert not whole[0]
    assert whole[-1]

    # The other half is left to the periodic run, which any host may do.
    wait_for_dead_clients(ceph, "vms")
    time.sleep(storage_child.LEASE_SECONDS)
    age(None)
    assert journal.creations(vms, names.BASE_PREFIX) == []
    left = vms.directory.names(names.BASE_PREFIX)
    assert set(left) <= {name for _, name in killed}
    for name in left:
        _check_whole(vms, name, content)
    age(-1)
    report = purge.purge(vms)
    assert [*report.stuck, *report.waiting] == []
    leases = vms.objects.leases(lease.OBJECT)
    assert [name for name in leases if names.is_base(name)] == []
    # A pool gets these with its first image, clone, lease or trashed image.
    kept = {"rbd_directory", "rbd_info", "rbd_children", "rbd_trash"}
    kept |= {lease.OBJECT, journal.OBJECT}
    wait_for(
        "the OSDs remove the snaps",
        lambda: _objects(ceph) <= before | kept,
        40,
    )
