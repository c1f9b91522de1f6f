# SPDX-License-Identifier: Apache-2.0

"""nova-rbd check: the result of every check, as a table and as JSON."""

import datetime
import subprocess

from nova_rbd_backend.ceph import clock
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.checks import warnings
from nova_rbd_backend.image_options import ImageOptions
from nova_rbd_backend.storage import fencing
from nova_rbd_backend.storage.disks import delete
from nova_rbd_backend.storage.images import purge
from tests.support.blank_disks import blank_disk
from tests.support.checking import settings_of
from tests.support.clients import set_quota
from tests.testbed.ceph.pools import command
from tests.testbed.process import wait_for


def found(rows):
    return {row["Check"]: row for row in rows}


def test_passed_and_failed(nova_rbd):
    """Only the secret fails, as libvirtd does not run or does not have it."""
    done = nova_rbd.run("check", "-f", "json")

    rows = found(nova_rbd.read(done))
    assert done.returncode == 1
    assert rows["libvirt secret"]["Result"] == "failed"
    assert rows["libvirt secret"]["Remark"]
    failed = [row for row in rows.values() if row["Result"] == "failed"]
    assert len(failed) == 1
    for name in ("options", "compute_driver", "Ceph cluster", "pool vms"):
        assert rows[name]["Result"] == "passed"
    assert "pool=vms" in rows["options"]["Remark"]
    table = nova_rbd.run("check").stdout
    assert max(map(len, table.splitlines())) < 140


def test_checks_that_could_not_be_tried(nova_rbd):
    text = nova_rbd.conf.read_text()
    nova_rbd.conf.write_text(text.replace("= vms", "= vmz"))

    rows = found(nova_rbd.read(nova_rbd.run("check", "-f", "json")))

    assert rows["pool vmz"]["Result"] == "failed"
    assert "ceph osd pool create vmz" in rows["pool vmz"]["Remark"]
    assert rows["rights for disks in vmz"]["Result"] == "not tried"
    assert rows["rights for snapshots in snapshots"]["Result"] == "passed"


def test_warns_of_cluster_health(ceph, nova_rbd):
    with ceph.admin() as admin:
        command(admin, "osd set", key="noout")
    try:
        rows = found(nova_rbd.read(nova_rbd.run("check", "-f", "json")))
    finally:
        with ceph.admin() as admin:
            command(admin, "osd unset", key="noout")

    row = rows["cluster's health"]
    assert row["Result"] == "warned"
    assert "noout" in row["Remark"]


def test_warns_of_a_manager_that_takes_no_tasks(ceph):
    """As in Debian 13, where the manager can't load the module for them."""
    refused = settings_of(ceph, user="nobody")

    warning = warning_of(refused, "tasks of Ceph's manager")

    assert "from this host" in warning
    assert "rbd_support" in warning


def warning_of(settings, name):
    """Return the warning of the check of this name, or None."""
    (step,) = (step for step in warnings.steps(settings) if step.name == name)
    return step.probe()


def test_space(ceph, vms):
    settings = settings_of(ceph, image_options=ImageOptions())
    assert warning_of(settings, "space in vms") is None
    vms.create("takes-space", 8 << 20)
    with vms.open("takes-space", read_only=False) as disk:
        disk.write(b"x" * (4 << 20), 0)
    try:
        _set_quota(ceph, 1 << 20)
        wait_for(
            "the monitors count the stored data",
            lambda: warning_of(settings, "space in vms"),
            60,
        )
    finally:
        _set_quota(ceph, 0)
    vms.remove("takes-space")


def _set_quota(ceph, max_bytes):
    with ceph.admin() as admin:
        set_quota(admin, "vms", max_bytes, field="max_bytes")


# Hides the folders where Debian has QEMU's loadable drivers.
HIDDEN = """
for folder in /usr/lib/*/qemu; do mount -t tmpfs none "$folder"; done
exec "$@"
"""


def test_qemu_without_its_rbd_driver(nova_rbd):
    done = subprocess.run(
        [
            *("unshare", "--mount", "sh", "-ec", HIDDEN, "sh"),
            *nova_rbd.command("check", "-f", "json"),
        ],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )

    row = found(nova_rbd.read(done))["QEMU's rbd driver"]
    assert row["Result"] == "failed"
    assert "qemu-block-extra" in row["Remark"]


def test_clock(ceph, vms, instance, disks_deleted, monkeypatch):
    settings = settings_of(ceph)
    blank_disk(vms, f"{instance}_disk", 1 << 20)
    assert warning_of(settings, "this host's clock") is None

    monkeypatch.setattr(clock, "TOLERATED_SECONDS", -1.0)

    assert "set the wrong one" in warning_of(settings, "this host's clock")


def test_deletions(ceph, vms, instance, monkeypatch):
    settings = settings_of(ceph)
    name = f"{instance}_disk"
    blank_disk(vms, name, 1 << 20)
    delete.delete_disks(vms, instance)
    assert warning_of(settings, "deletions in vms") is None

    monkeypatch.setattr(warnings, "_LONGEST_DELETION", datetime.timedelta())

    assert name in warning_of(settings, "deletions in vms")
    purge.purge(vms)
    assert warning_of(settings, "deletions in vms") is None


def test_disks_without_exclusive_lock(ceph, vms, instance):
    settings = settings_of(ceph)
    name = f"{instance}_disk"
    options = ImageOptions(features=("layering",))
    Pool(vms.cluster, "vms", options=options).create(name, 1 << 20)

    warning = warning_of(settings, "locks of disks in vms")

    assert name in warning
    assert "rbd feature enable vms/DISK exclusive-lock" in warning
    fencing.fence_for_start(vms, instance)
    assert warning_of(settings, "locks of disks in vms") is None
    vms.remove(name)
