# SPDX-License-Identifier: Apache-2.0

"""Guests' disks that a real rbd-mirror copies to a second cluster.

The daemon watches each disk as a guest does, but it is no guest.
"""

import contextlib
import signal
import subprocess
import time

import pytest
import rbd

from nova_rbd_backend import errors
from nova_rbd_backend.ceph.holders import Answer
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage import fencing
from nova_rbd_backend.storage.disks import delete, provision
from tests.support.blank_disks import blank_disk
from tests.support.clients import blocklist, holders
from tests.support.clusters import started_ceph
from tests.support.storage_child import JOURNALED
from tests.testbed.process import wait_for

MIB = 1 << 20
GOAL_SECONDS = 3.0
WATCH_SECONDS = 10
# The daemon looks for new images of a pool every 30 s.
MIRROR_LIMIT_SECONDS = 90


@contextlib.contextmanager
def vms_of(ceph):
    with ceph.admin() as admin, admin.open_ioctx("vms") as ioctx:
        yield ioctx


@pytest.fixture(scope="module")
def ceph():
    """The cluster of the guests."""
    with started_ceph(watch_timeout_seconds=WATCH_SECONDS) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def other(ceph):
    """The cluster of the copies."""
    with started_ceph(osds=1) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def mirror(ceph, other, tmp_path_factory):
    """The rbd-mirror that copies images of one cluster to the other."""
    folder = tmp_path_factory.mktemp("mirror")
    api = rbd.RBD()
    with vms_of(ceph) as here, vms_of(other) as there:
        for ioctx in (here, there):
            api.mirror_mode_set(ioctx, rbd.RBD_MIRROR_MODE_IMAGE)
        token = api.mirror_peer_bootstrap_create(here)
        direction = rbd.RBD_MIRROR_PEER_DIRECTION_RX
        api.mirror_peer_bootstrap_import(there, direction, token)
    with (folder / "out").open("w") as out:
        # rbd-mirror also looks for ceph.conf in its current folder (16.2).
        daemon = subprocess.Popen(
            ("rbd-mirror", "-f", "--id", "admin", "-c", str(other.conf)),
            cwd=other.folder,
            stdout=out,
            stderr=out,
        )
    try:
        yield daemon
    finally:
        daemon.kill()
        daemon.wait(10)


@pytest.fixture
def name(ceph, mirror, vms, instance):
    """A disk of the instance that the daemon has begun to copy."""
    name = f"{instance}_disk"
    blank_disk(vms, name, MIB)
    with vms_of(ceph) as ioctx, rbd.Image(ioctx, name) as image:
        image.mirror_image_enable(rbd.RBD_MIRROR_IMAGE_MODE_SNAPSHOT)
    wait_for(
        "rbd-mirror watches the disk",
        lambda: holders(vms, name),
        MIRROR_LIMIT_SECONDS,
    )
    return name


@pytest.fixture
def daemon(vms, name):
    """The daemon's client, as the disk shows it."""
    (client,) = holders(vms, name)
    return client


@pytest.fixture
def frozen(mirror, daemon):
    mirror.send_signal(signal.SIGSTOP)
    yield daemon
    mirror.send_signal(signal.SIGCONT)


def timed_start(vms, instance):
    began = time.monotonic()
    fencing.fence_for_start(vms, instance)
    return time.monotonic() - began


def test_daemon_is_known(vms, name, daemon):
    assert vms.holders.ask_mirrors(1) == Answer(frozenset([daemon.client_id]))
    blank_disk(vms, f"{name}.swap", MIB)
    assert vms.holders.is_mirrored(vms.directory.image_id(name))
    assert not vms.holders.is_mirrored(vms.directory.image_id(f"{name}.swap"))


def test_guest_starts_beside_the_daemon(
    ceph, vms, instance, name, daemon, noted
):
    before = blocklist(ceph)
    seconds = timed_start(vms, instance)
    print(f"started after {seconds:.3f} s")
    assert seconds < WATCH_SECONDS / 2
    assert daemon in holders(vms, name)
    assert blocklist(ceph) == before
    assert not noted


def test_second_guest_is_refused(vms, instance, name, daemon, client):
    guest = client(name)  # has the disk open, but has not written
    with pytest.raises(errors.DiskInUse) as caught:
        fencing.fence_for_start(vms, instance)
    (address,) = {h.address for h in holders(vms, name)} - {daemon.address}
    assert address in str(caught.value)
    assert daemon.address not in str(caught.value)
    assert guest.write("more") == "wrote"


def test_dead_guest_is_fenced_and_the_daemon_is_not(
    ceph, vms, instance, name, daemon, client, noted
):
    """Ceph does not say which of the two is silent.

    So the start waits until the dead guest's watch ends.
    """
    before = blocklist(ceph)
    dead = client(name)
    assert dead.write("old") == "wrote"
    dead.kill()
    seconds = timed_start(vms, instance)
    print(f"started after {seconds:.1f} s, watches last {WATCH_SECONDS} s")
    assert seconds < WATCH_SECONDS + 2 * GOAL_SECONDS
    (fact,) = noted
    assert fact.client_id == dead.client_id
    assert blocklist(ceph).keys() - before.keys() == {fact.address}
    assert holders(vms, name) == (daemon,)


def test_silent_daemon_is_waited_for(ceph, vms, instance, name, frozen, noted):
    before = blocklist(ceph)
    seconds = timed_start(vms, instance)
    print(f"started after {seconds:.1f} s, watches last {WATCH_SECONDS} s")
    assert seconds < WATCH_SECONDS + 2 * GOAL_SECONDS
    assert holders(vms, name) == ()
    assert blocklist(ceph) == before
    assert not noted


def test_copy_of_a_journaled_disk(ceph, other, mirror, vms, instance):
    """It gets the name and the metadata that the disk gets at its end."""
    pool = Pool(vms.cluster, "vms", options=JOURNALED)
    name, metadata = f"{instance}_disk", {"nova.key": "x"}

    def copies():
        with vms_of(other) as ioctx:
            return rbd.RBD().list(ioctx)

    def is_copied(draft):
        with vms_of(ceph) as ioctx, rbd.Image(ioctx, draft) as image:
            image.mirror_image_enable(rbd.RBD_MIRROR_IMAGE_MODE_JOURNAL)
        wait_for(
            "rbd-mirror copies the draft",
            lambda: draft in copies(),
            MIRROR_LIMIT_SECONDS,
        )

    provision.filled_disk(pool, name, MIB, is_copied, metadata)
    wait_for(
        "the copy has the disk's name",
        lambda: name in copies(),
        MIRROR_LIMIT_SECONDS,
    )
    with vms_of(other) as ioctx, rbd.Image(ioctx, name) as copy:
        assert dict(copy.metadata_list()) == metadata
    delete.delete_disks(pool, instance)
    wait_for(
        "the copy is deleted",
        lambda: name not in copies(),
        MIRROR_LIMIT_SECONDS,
    )
