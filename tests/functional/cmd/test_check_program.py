# SPDX-License-Identifier: Apache-2.0

"""What nova-rbd-check prints, with real Ceph and libvirt secrets."""

import base64
import subprocess
import sys
import uuid

import pytest

from nova_rbd_backend import conf
from nova_rbd_backend.cmd import check
from tests.support.checking import probes, secret_xml

DEFINE = """
import sys
import libvirt
libvirt.virEventRegisterDefaultImpl()
secrets = libvirt.open(sys.argv[1])
secrets.secretDefineXML(sys.argv[2]).setValue(sys.stdin.buffer.read())
"""

# libvirt's embedded driver needs an event loop; a libvirtd does not.
TOOL = """
import sys
import libvirt
from nova_rbd_backend.cmd import check
libvirt.virEventRegisterDefaultImpl()
sys.exit(check.main(sys.argv[1:]))
"""


@pytest.fixture
def secret_uuid():
    return str(uuid.uuid4())


@pytest.fixture
def tool(ceph, secret_uuid, tmp_path):
    """Return a function that runs nova-rbd-check with changes to nova.conf.

    Each run has its own process, as a process can have only one embedded
    driver.
    """
    uri = f"secret:///embed?root={tmp_path}/libvirt"

    def tool(*more, key=None, **changes):
        if key is not None:
            _run(
                ["-c", DEFINE, uri, secret_xml(secret_uuid)],
                input=base64.b64decode(key),
            ).check_returncode()
        lines = {
            "compute_driver": conf.COMPUTE_DRIVER,
            "libvirt_images_type": "rbd",
            "libvirt_images_store": "vms",
            "rbd_user": "nova",
            "rbd_secret_uuid": secret_uuid,
        } | changes
        text = "\n".join(f"{name} = {value}" for name, value in lines.items())
        path = tmp_path / "nova.conf"
        path.write_text(
            f"[DEFAULT]\n{text}\n[libvirt]\n"
            f"images_rbd_ceph_conf = {ceph.conf}\nconnection_uri = {uri}\n"
        )
        done = _run(["-c", TOOL, "--config-file", str(path), *more])
        return done.returncode, done.stdout.decode().splitlines()

    return tool


def _run(arguments, **options):
    return subprocess.run(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        timeout=60,
        check=False,
        **options,
    )


def test_passes(ceph, tool):
    code, rows = tool(key=ceph.key("nova"))

    warned = [row for row in rows if not row.startswith("passed  ")]
    if ceph.takes_tasks:
        assert warned == []
    else:
        health, tasks = warned
        assert health.startswith("warned  cluster's health: HEALTH_WARN")
        assert tasks.startswith("warned  tasks of Ceph's manager: ")
    assert "passed  rights for disks in vms" in rows
    assert "passed  libvirt secret" in rows
    assert "passed  QEMU's rbd driver" in rows
    assert code == 0


def test_checks_the_rights_of_glance(ceph, tool):
    asked = ("--glance-user", "glance")
    key = ceph.key("nova")

    code, rows = tool(
        *asked, key=key, libvirt_images_snapshot_store="snapshots"
    )

    assert "passed  Glance's rights for snapshots" in rows
    assert code == 0

    # By default snapshots are in the disks' pool, where Glance may only read.
    code, rows = tool(*asked)

    (row,) = [each for each in rows if each.startswith("FAILED")]
    assert row.startswith(
        "FAILED  Glance's rights for snapshots: client.glance may not "
        "delete a snapshot in pool 'vms'"
    )
    assert code == 1
    for pool in ("vms", "snapshots"):
        assert probes(ceph, pool) == []


@pytest.mark.parametrize(
    ("changes", "row"),
    [
        ({"libvirt_images_type": "ceph"}, "FAILED  options: "),
        ({"compute_driver": "libvirt.LibvirtDriver"}, "FAILED  compute_dri"),
        ({"libvirt_images_store": "vmz"}, "FAILED  pool vmz: "),
        ({}, "FAILED  libvirt secret: libvirt has no secret"),
    ],
)
def test_names_the_check_that_failed(tool, changes, row):
    code, rows = tool(**changes)

    assert [each for each in rows if each.startswith(row)]
    assert code == 1


def test_goes_on_after_a_check_that_failed(ceph, tool):
    code, rows = tool(key=ceph.key("nova"), libvirt_images_store="vmz")

    assert "not tried  rights for disks in vmz: needs: pool vmz" in rows
    assert "passed  blocklist of dead clients" in rows
    assert "passed  libvirt secret" in rows
    assert code == 1


def test_asks_nothing_of_ceph_for_other_types(tmp_path, capsys):
    path = tmp_path / "nova.conf"
    path.write_text(
        "[DEFAULT]\nlibvirt_images_type = qcow2\n"
        f"compute_driver = {conf.COMPUTE_DRIVER}\n"
    )

    assert check.main(["--config-file", str(path)]) == 0

    assert "Ceph" not in capsys.readouterr().out
