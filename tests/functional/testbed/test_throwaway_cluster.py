# SPDX-License-Identifier: Apache-2.0

"""The throwaway cluster does what its docstrings say."""

import contextlib
import errno
import os
import pathlib
import struct
import subprocess
import sys
import time

import psutil
import pytest
import rados
import rbd

from tests.support.clusters import started_ceph
from tests.testbed.ceph import users
from tests.testbed.ceph.cluster import CephCluster
from tests.testbed.ceph.pools import command
from tests.testbed.process import TestbedError, wait_for

MIB = 1 << 20
REPOSITORY = pathlib.Path(__file__).parents[3]


@contextlib.contextmanager
def connected(cluster, user):
    limits = {"rados_mon_op_timeout": "10", "rados_osd_op_timeout": "10"}
    connection = rados.Rados(
        name=f"client.{user}", conffile=str(cluster.conf), conf=limits
    )
    connection.connect(timeout=10)
    try:
        yield connection
    finally:
        connection.shutdown()


def write_object(connection, pool="vms"):
    with connection.open_ioctx(pool) as ioctx:
        ioctx.write_full("an-object", b"kept")


def read_object(connection, pool="vms"):
    with connection.open_ioctx(pool) as ioctx:
        return ioctx.read("an-object")


def processes_of(cluster):
    """Return all command lines that mention the cluster's ceph.conf."""
    lines = subprocess.run(
        ["ps", "-eww", "-o", "args"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    return [line for line in lines if str(cluster.conf) in line]


# -- users -----------------------------------------------------------------


@pytest.fixture
def parent(ceph):
    """An image in Glance's pool, made by glance, with the snap "snap"."""
    with (
        connected(ceph, "glance") as glance,
        glance.open_ioctx("images") as images,
    ):
        rbd.RBD().create(images, "parent", 8 * MIB, old_format=False)
        with rbd.Image(images, "parent") as image:
            image.write(b"parent", 0)
            image.create_snap("snap")
        yield "parent"
        with rbd.Image(images, "parent") as image:
            image.remove_snap("snap")
        rbd.RBD().remove(images, "parent")


@pytest.mark.parametrize("user", ["nova", "glance"])
def test_user_has_the_documented_caps(ceph, user):
    with ceph.admin() as admin:
        (entry,) = command(admin, "auth get", entity=f"client.{user}")
    assert entry["caps"] == users.documented_caps(user)


@pytest.mark.parametrize("user", ["nova", "glance"])
def test_documented_file_cannot_be_imported_without_a_key(ceph, user):
    """Ceph would accept a file without a key line, and set a zero key."""
    text = (users.CAPS_FOLDER / f"client.{user}.keyring").read_bytes()
    with ceph.admin() as admin:
        code, _, reason = admin.mon_command('{"prefix": "auth import"}', text)
    assert code == -errno.EINVAL, reason


def test_nova_clones_grows_and_deletes_a_disk(ceph, parent):
    with (
        connected(ceph, "nova") as nova,
        nova.open_ioctx("images") as images,
        nova.open_ioctx("vms") as vms,
    ):
        librbd = rbd.RBD()
        librbd.clone(images, parent, "snap", vms, "disk", data_pool="vms-data")
        with rbd.Image(vms, "disk") as image:
            assert image.op_features() & rbd.RBD_OPERATION_FEATURE_CLONE_CHILD
            assert image.read(0, 6) == b"parent"
            image.resize(16 * MIB)
            image.write(b"child", 9 * MIB)
            image.create_snap("own")
            image.remove_snap("own")
            image.flatten()
        librbd.trash_move(vms, "disk", 0)
        (trashed,) = (
            entry["id"]
            for entry in librbd.trash_list(vms)
            if entry["name"] == "disk"
        )
        librbd.trash_remove(vms, trashed)
        assert "disk" not in librbd.list(vms)


def test_nova_keeps_omap_objects_and_calls_class_methods(ceph):
    def encoded(text):
        return struct.pack("<I", len(text)) + text

    with connected(ceph, "nova") as nova, nova.open_ioctx("vms") as vms:
        with rados.WriteOpCtx() as operation:
            vms.set_omap(operation, ("key",), (b"value",))
            vms.operate_write_op(operation, "an-object")
        vms.remove_object("an-object")
        rbd.RBD().create(vms, "disk", MIB, old_format=False)
        with rbd.Image(vms, "disk") as image:
            header = f"rbd_header.{image.id()}"
        pairs = struct.pack("<I", 1) + encoded(b"key") + encoded(b"value")
        vms.execute(header, "rbd", "metadata_set", pairs)
        with rbd.Image(vms, "disk") as image:
            assert image.metadata_get("key") == "value"
        rbd.RBD().remove(vms, "disk")


def test_nova_asks_capacity_and_blocklists(ceph):
    with connected(ceph, "nova") as nova:
        assert command(nova, "df")["stats"]["total_bytes"] > 0
        blocked = {"addr": "127.0.0.1:0/1", "expire": 1.0}
        command(nova, "osd blocklist", blocklistop="add", **blocked)


def test_nova_changes_nothing_in_the_images_pool(ceph, parent):
    with connected(ceph, "nova") as nova:
        with pytest.raises(rados.PermissionError):
            write_object(nova, "images")
        with nova.open_ioctx("images") as images:
            with pytest.raises(rbd.PermissionError):
                rbd.RBD().create(images, "own", MIB, old_format=False)
            with pytest.raises(rbd.PermissionError):
                rbd.Image(images, parent)  # for writing
            with pytest.raises(rbd.PermissionError):
                rbd.RBD().trash_move(images, parent, 0)


def test_user_nobody_may_connect_but_not_read(ceph):
    with (
        connected(ceph, "nobody") as nobody,
        # From Ceph 18 on, OSDs leave it without an answer.
        pytest.raises((rados.PermissionError, rados.TimedOut)),
    ):
        read_object(nobody)


def test_glance_may_not_touch_disks(ceph):
    with (
        connected(ceph, "glance") as glance,
        pytest.raises(rados.PermissionError),
    ):
        write_object(glance, "vms")


# -- life ------------------------------------------------------------------


def test_status_shows_all_daemons_within_1_gib():
    """A fresh cluster, as OSDs grow up to their memory target with use."""
    with started_ceph() as fresh:
        rows = fresh.status()
    assert [name for name, _, _ in rows] == [
        *("mon.a", "osd.0", "osd.1", "osd.2", "mgr.x")
    ]
    assert all(pid.isdigit() for _, pid, _ in rows)
    assert 0 < sum(int(rss) for _, _, rss in rows) < 1024


def test_paused_osds_hold_requests_until_resumed(ceph):
    with connected(ceph, "nova") as nova:
        ceph.pause_osds()
        try:
            with nova.open_ioctx("vms") as vms:
                request = vms.aio_write_full("an-object", b"kept")
                time.sleep(1)
                assert not request.is_complete()
                ceph.resume_osds()
                wait_for("the write ends", request.is_complete, 10)
        finally:
            ceph.resume_osds()
        assert read_object(nova) == b"kept"


def test_second_cluster_beside_the_first(ceph, tmp_path):
    """IPv6, msgr2 only, in a long folder; killed, started again, removed."""
    folder = tmp_path / ("a-folder-with-a-long-name" * 4)
    second = CephCluster(folder, address="::1", msgr2_only=True)
    try:
        began = time.monotonic()
        second.start()
        assert time.monotonic() - began < 10
        with connected(second, "nova") as nova:
            assert nova.get_fsid() == second.fsid != ceph.fsid
            write_object(nova)
        second.kill()
        assert processes_of(second) == []
        second.start()
        with connected(second, "nova") as nova:
            assert read_object(nova) == b"kept"
        assert second.settings.mon_address.startswith("[v2:[::1]:")
        assert "v1" not in second.settings.mon_address
    finally:
        second.destroy()
    assert not folder.exists()
    assert processes_of(second) == []
    with connected(ceph, "nova") as nova:
        write_object(nova)


def test_next_start_cleans_up_after_a_killed_one(tmp_path):
    cluster = CephCluster(tmp_path / "c", osds=1)
    program = (
        "import pathlib, sys; "
        "from tests.testbed.ceph.cluster import CephCluster; "
        "CephCluster(pathlib.Path(sys.argv[1]), osds=1).start()"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", program, str(cluster.folder)], cwd=REPOSITORY
    )
    try:
        wait_for("a daemon runs", lambda: processes_of(cluster), 20, 0.02)
        # The next start has to kill the formatting processes, rather than wait
        # for them, as these cannot go on.
        for child in psutil.Process(first.pid).children():
            child.suspend()
        first.kill()
        first.wait()
        old_fsid = cluster.fsid
        cluster.start()
        assert cluster.fsid != old_fsid
        with connected(cluster, "admin") as admin:
            write_object(admin)
    finally:
        first.kill()
        cluster.destroy()
    assert processes_of(cluster) == []


def test_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "precious").touch()
    with pytest.raises(TestbedError, match="remove it yourself"):
        CephCluster(tmp_path).destroy()
    assert os.listdir(tmp_path) == ["precious"]
