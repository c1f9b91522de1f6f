# SPDX-License-Identifier: Apache-2.0

"""The real nova-compute, started with options that must stop it.

nova-compute ends before it looks for a conductor, so nothing else of OpenStack
is needed. tests/unit/conf has all options that are refused, by the same lines
of code; tests/e2e/checks has what is refused later in nova-compute's start.
"""

import pathlib
import re
import subprocess
import sys

import pytest

NOVA_COMPUTE = pathlib.Path(sys.executable).with_name("nova-compute")
OURS = "compute_driver = rbd_backend.LibvirtDriver\n"
RBD = OURS + "libvirt_images_type = rbd\nlibvirt_images_store = vms\n"

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
    "type conflict": (
        RBD + "[libvirt]\nimages_type = qcow2\n",
        "[libvirt] images_type is 'qcow2'",
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
