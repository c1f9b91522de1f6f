# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""nova-rbd convert --live where one call fails while the guest stands still.

The guest never runs on a copy that a later run would take for half made.
"""

import os

import libvirt
import pytest

from nova_rbd_backend import errors
from nova_rbd_backend.cmd import main as program
from nova_rbd_backend.convert.guest import Guest
from nova_rbd_backend.storage import conversion
from tests.functional.local_instance import MIB

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def content():
    return {n: os.urandom(MIB) + bytes(MIB) for n in ("disk", "disk.eph0")}


@pytest.fixture
def running(local, content):
    """A domain without a system: nobody writes but QEMU's copy."""
    for dev, (name, data) in zip(("vda", "vdb"), content.items(), strict=True):
        local.path(name).write_bytes(data)
        local.add(name, dev, "raw")
    local.define()
    local.start()
    return local


@pytest.fixture
def fails(monkeypatch):
    """Have a method fail at these of its calls."""

    def install(owner, method, calls):
        real, count = getattr(owner, method), 0

        def call(*args):
            nonlocal count
            count += 1
            if count in calls:
                raise errors.OperationTimedOut("no answer", operation=method)
            return real(*args)

        monkeypatch.setattr(owner, method, call)

    return install


def convert(local, *words):
    conf = str(local.program.conf)
    return program.main(["--config-file", conf, "convert", local.uuid, *words])


def is_converted(local, vms, content):
    for name, data in content.items():
        with vms.open(local.image(name)) as disk:
            assert disk.read(0, 2 * MIB) == data
    assert local.sources() == {
        "vda": f"vms/{local.image('disk')}",
        "vdb": f"vms/{local.image('disk.eph0')}",
    }


def state(local):
    return local.domain.state()[0]


def test_one_call_fails(vms, running, content, fails):
    """What was led over is marked, and has its name, before it goes on."""
    fails(conversion.Mirror, "mark", {1})
    assert convert(running, "--live") != 0
    assert state(running) == libvirt.VIR_DOMAIN_RUNNING
    found = running.sources(live=True)
    assert found["vda"] == f"vms/{running.image('disk')}"
    assert found["vdb"] == str(running.path("disk.eph0"))
    assert conversion.look(vms, running.image("disk")).marked
    assert convert(running, "--live") == 0
    is_converted(running, vms, content)


def test_started_again_before_the_next_run(vms, running, fails):
    """What it wrote since it was led over is there after the next run."""
    fails(Guest, "pivot", {2})
    assert convert(running, "--live") != 0
    assert running.sources(live=True)["vda"].startswith("vms/")
    running.stop()
    name = running.image("disk")
    with vms.open(name, read_only=False) as disk:
        disk.write(b"by the guest", 0)
    running.start()
    convert(running, "--live")
    with vms.open(name) as disk:
        assert disk.read(0, 12) == b"by the guest"


@pytest.mark.parametrize("goes", [False, True])
def test_ceph_does_not_answer_until_later(
    vms, running, content, fails, capsys, goes
):
    """It stands still until the next run, or is gone by then."""
    fails(conversion.Mirror, "mark", {1, 2})
    assert convert(running, "--live") != 0
    assert "stands still" in capsys.readouterr().err
    assert state(running) == libvirt.VIR_DOMAIN_PAUSED
    if goes:
        running.stop()
    assert convert(running, *([] if goes else ["--live"])) == 0
    is_converted(running, vms, content)
    if not goes:
        assert state(running) == libvirt.VIR_DOMAIN_RUNNING
