# SPDX-License-Identifier: Apache-2.0

"""What the report of a failed test says of a cluster."""

import subprocess

import pytest

from tests.support import ceph_report
from tests.support.clusters import started_ceph
from tests.testbed.process import wait_for


@pytest.fixture(scope="module")
def ceph():
    with started_ceph(osds=1) as cluster:
        yield cluster


def test_slow_request_is_told_with_its_steps(ceph, monkeypatch):
    monkeypatch.setattr(ceph_report, "_LATE_SECONDS", 0)
    socket = str(ceph.socket("osd.0"))
    option = ("config", "set", "osd_op_history_slow_op_threshold", "0")
    subprocess.run(
        ["ceph", "--admin-daemon", socket, *option],
        check=True,
        capture_output=True,
    )
    with ceph.admin() as admin, admin.open_ioctx("vms") as ioctx:
        ioctx.write_full("slow-object", b"x")

    def told():
        said = ceph_report.of_ceph(ceph)
        assert "HEALTH_" in said
        return [line for line in said.splitlines() if "slow-object" in line]

    # The OSD files a request away after it has answered.
    (line,) = wait_for("the request is told", told, 10)
    assert "reached_pg" in line


def test_silent_osd_is_told(ceph, monkeypatch):
    monkeypatch.setattr(ceph_report, "_OSD_SECONDS", 1)
    ceph.pause_osds()
    try:
        said = ceph_report.of_ceph(ceph)
    finally:
        ceph.resume_osds()
    assert "dump_ops_in_flight: no answer" in said
