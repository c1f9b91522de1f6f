# SPDX-License-Identifier: Apache-2.0

"""The real nova-compute, started with options that must stop it.

nova-compute ends before it looks for a conductor, so nothing else of OpenStack
is needed. tests/e2e has clusters, pools, rights and secrets that are refused.
"""

import pathlib
import re
import subprocess
import sys

import pytest

NOVA_COMPUTE = pathlib.Path(sys.executable).with_name("nova-compute")
OURS = "compute_driver = rbd_backend.LibvirtDriver\n"
RBD = OURS + "libvirt_images_type = rbd\nlibvirt_images_store = vms\n"
SECRET = "rbd_secret_uuid = 457eb676-33da-42ec-9a8c-9293d545c337\n"

# Case -> options, and part of the line with which nova-compute ends.
REFUSED = {
    "other driver": (
        "compute_driver = libvirt.LibvirtDriver\nlibvirt_images_type = rbd\n",
        "set compute_driver to rbd_backend.LibvirtDriver",
    ),
    "no driver": (
        "libvirt_images_type = rbd\n",
        "set compute_driver to rbd_backend.LibvirtDriver",
    ),
    "unknown type": (
        OURS + "libvirt_images_type = ceph\n",
        "found 'ceph'",
    ),
    "no pool": (
        OURS + "libvirt_images_type = rbd\n",
        "set [DEFAULT] libvirt_images_store to the Ceph pool",
    ),
    "no pool, Nova's type": (
        OURS + "[libvirt]\nimages_type = rbd\n",
        "set [DEFAULT] libvirt_images_store to the Ceph pool",
    ),
    "type conflict": (
        RBD + "[libvirt]\nimages_type = qcow2\n",
        "[libvirt] images_type is 'qcow2'",
    ),
    "pool conflict": (
        RBD + "[libvirt]\nimages_rbd_pool = other\n",
        "[libvirt] images_rbd_pool is 'other'",
    ),
    "old and new store": (
        RBD + "libvirt_images_volume_group = old\n",
        "remove libvirt_images_volume_group",
    ),
    "store without use": (
        OURS + "libvirt_images_type = qcow2\nlibvirt_images_store = vms\n",
        "images of type 'qcow2' have no store",
    ),
    "user without secret": (
        RBD + "rbd_user = nova\n",
        "rbd_secret_uuid is not set",
    ),
    "secret without user": (RBD + SECRET, "rbd_user is not"),
    "images not raw": (
        RBD + "force_raw_images = false\n",
        "force_raw_images is false",
    ),
    "encryption": (
        RBD + "[ephemeral_storage_encryption]\nenabled = true\n",
        "[ephemeral_storage_encryption] enabled is true",
    ),
}


@pytest.mark.parametrize(
    ("options", "expected"), REFUSED.values(), ids=REFUSED.keys()
)
def test_refused(tmp_path, options, expected):
    path = tmp_path / "nova.conf"
    path.write_text(
        f"[DEFAULT]\ntransport_url = fake:/\nstate_path = {tmp_path}\n"
        f"my_ip = 127.0.0.1\n{options}"
    )

    done = subprocess.run(
        [NOVA_COMPUTE, "--config-file", path],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 1, done.stdout
    critical = re.findall(r"^.* CRITICAL .*$", done.stdout, re.MULTILINE)
    assert len(critical) == 1, done.stdout
    assert "nova_rbd_backend" in critical[0]
    assert critical[0].count(expected) == 1
    assert "Traceback" not in done.stdout
