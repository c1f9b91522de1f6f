# SPDX-License-Identifier: Apache-2.0

"""One connection for a process, and the errors of connecting."""

import gc
import json
import os
import subprocess
import sys
import time

import pytest

from nova_rbd_backend import errors
from nova_rbd_backend.ceph import cluster
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.settings import ClusterSettings
from nova_rbd_backend.storage.disks import provision
from tests.support.blank_disks import blank_disk
from tests.support.clients import connect, in_threads, make_user
from tests.support.clusters import started_ceph
from tests.testbed.ceph import users
from tests.testbed.process import wait_for

pytestmark = pytest.mark.usefixtures("disks_deleted")
MIB = 1 << 20


def _sessions(ceph, user):
    """Return the ids of client.<user>'s connections to the monitor."""
    socket = next(ceph.folder.glob("s/mon.a.asok"))
    done = subprocess.run(
        ["ceph", "--admin-daemon", str(socket), "sessions"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return {
        session["global_id"]
        for session in json.loads(done.stdout)
        if session["entity_name"] == f"client.{user}"
    }


def test_twenty_threads_share_one_connection(ceph, parent, instance):
    # No other test uses this user, so all its sessions are ours.
    user = make_user(ceph, "sole", **users.documented_caps("nova"))
    vms = Pool(connect(ceph, user), "vms")
    assert _sessions(ceph, user) == set()

    def make(number):
        name = f"{instance}_disk{number}"
        facts = provision.clone_disk(vms, name, parent, 16 * MIB, {"n": "1"})
        assert facts.created

    in_threads(make, range(20))
    assert _sessions(ceph, user) == {vms.cluster.client_id()}
    assert len(vms.directory.names(instance)) == 20
    assert all(
        provision.is_whole(vms, name) for name in vms.directory.names(instance)
    )


def test_threads_waiting_for_a_connection_share_its_failure(deaf_conf):
    settings = ClusterSettings(str(deaf_conf), "nova", 2, 5)

    def ask(number):
        with pytest.raises(errors.ClusterUnreachable):
            cluster.connect(settings).fsid()

    begun = time.monotonic()
    in_threads(ask, range(10))
    assert time.monotonic() - begun < 8


def test_what_cannot_be_connected_to(ceph, tmp_path):
    def fsid(**changed):
        settings = {
            "conf_file": str(ceph.conf),
            "user": "nova",
            "connect_timeout_seconds": 1,
            "operation_timeout_seconds": 5,
        }
        settings |= changed
        return cluster.connect(ClusterSettings(**settings)).fsid()

    deaf = tmp_path / "deaf.conf"
    deaf.write_text(
        "[global]\nmon_host = 127.0.0.1:1\nkeyring = "
        + f"{ceph.keyring('nova')}\n"
    )
    bad = tmp_path / "bad.conf"
    bad.write_text("[global\nmon_host")
    with pytest.raises(errors.ConfFileInvalid):
        fsid(conf_file=str(bad))
    with pytest.raises(errors.ConfFileNotFound):
        fsid(conf_file="/nonexistent")
    with pytest.raises(errors.ClusterUnreachable):
        fsid(conf_file=str(deaf))
    with pytest.raises(errors.KeyringNotFound):
        fsid(user="stranger")


def threads():
    return len(os.listdir("/proc/self/task"))


def test_dropped_connections_are_closed(ceph):
    # Limits that no other test uses give this test its own connection.
    here = connect(ceph, connect_timeout_seconds=11)
    vms = Pool(here, "vms")
    vms.directory.exists("x")
    before = threads()
    for _ in range(5):
        here.drop(here.connection())
        vms.directory.exists("x")
    gc.collect()
    wait_for(
        "the dropped connections' threads end", lambda: threads() <= before, 20
    )


def test_failed_connections_are_closed(deaf_conf):
    settings = ClusterSettings(str(deaf_conf), "nova", 1, 5)
    here = cluster.connect(settings)
    before = threads()
    for _ in range(3):
        with pytest.raises(errors.ClusterUnreachable):
            here.fsid()
    wait_for(
        "the failed connections' threads end", lambda: threads() <= before, 20
    )


def test_image_outlives_the_drop_of_its_connection(vms, instance):
    name = f"{instance}_disk"
    blank_disk(vms, name, MIB)
    with vms.open(name, read_only=False) as disk:
        vms.cluster.drop(vms.cluster.connection())
        gc.collect()
        disk.write(b"whole", 0)
    with vms.open(name) as disk:
        assert disk.read(0, 5) == b"whole"


FORKS = """
import os, sys
from nova_rbd_backend.ceph import cluster
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.settings import ClusterSettings
from nova_rbd_backend.storage.disks import provision
from tests.support.blank_disks import blank_disk
settings = ClusterSettings(sys.argv[1], "nova", 10, 30)
storage = cluster.connect(settings)
vms = Pool(storage, "vms")
blank_disk(vms, sys.argv[2] + "_one", 1 << 20)
parents = storage.connection().handle.get_addrs()
child = os.fork()
assert provision.is_whole(vms, sys.argv[2] + "_one")
if child == 0:
    assert storage.connection().handle.get_addrs() != parents
    blank_disk(vms, sys.argv[2] + "_two", 1 << 20)
else:
    assert os.waitpid(child, 0)[1] == 0
    assert storage.connection().handle.get_addrs() == parents
    blank_disk(vms, sys.argv[2] + "_three", 1 << 20)
"""


def test_forked_process_has_its_own_connection(ceph, vms, instance):
    subprocess.run(
        [sys.executable, "-c", FORKS, str(ceph.conf), instance],
        timeout=60,
        check=True,
    )
    assert vms.directory.names(instance) == [
        f"{instance}_{name}" for name in ("one", "three", "two")
    ]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_monitors_of_a_msgr2_only_cluster(address):
    """QEMU reaches such a monitor only if it is given the port's number."""
    with started_ceph(address=address, osds=1, msgr2_only=True) as ceph:
        storage = connect(ceph)
        (monitor,) = storage.mon_addresses()
        assert (monitor.host, monitor.msgr2) == (address, True)
        Pool(storage, "vms").create("disk", MIB)
        # What libvirt passes to QEMU (virStorageSource): mon_host, and no
        # conf file.
        bare = f"[{address}]" if ":" in address else address
        host = f"{bare}:{monitor.port}".replace(":", "\\:")
        keyring = ceph.keyring("nova")
        where = f"rbd:vms/disk:id=nova:conf=/dev/null:keyring={keyring}"
        done = subprocess.run(
            ["qemu-img", "info", "-f", "raw", f"{where}:mon_host={host}"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "virtual size: 1 MiB" in done.stdout, done.stderr
