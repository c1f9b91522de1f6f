# SPDX-License-Identifier: Apache-2.0

"""A nova-compute is killed while a real guest is frozen for a snapshot."""

import contextlib
import signal
import subprocess
import sys
import uuid

import libvirt
import pytest

from tests.nova.conftest import needs_native_nova
from tests.nova.drivers import new_driver
from tests.nova.virt.snapshot.agent import marks, state_of
from tests.nova.virt.snapshot.conftest import DOMAIN
from tests.testbed.process import wait_for

pytestmark = needs_native_nova

# Freezes the guest as a snapshot does, and is killed before it thaws it.
KILLED = """
import os, sys
import nova.conf
nova.conf.CONF(["--config-file", sys.argv[1]], project="nova")
from nova_rbd_backend import conf
conf.register(nova.conf.CONF)
from nova import objects
from nova.virt import fake
from nova_rbd_backend.virt.driver import LibvirtDriver
from nova_rbd_backend.virt.snapshot import quiesce
objects.register_all()
meta = {"image_hw_qemu_guest_agent": "yes"}
instance = objects.Instance(
    uuid=sys.argv[2], image_ref="", system_metadata=meta
)
driver = LibvirtDriver(fake.FakeVirtAPI())
with quiesce.scope(driver, None, instance), quiesce.frozen():
    os.kill(os.getpid(), 9)
"""


def kill_between_freeze_and_thaw(settings, guest):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, settings, guest.UUIDString()],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.fixture
def started(settings, monkeypatch):
    """Return a function that does what nova-compute's start does to guests."""
    from nova.virt.libvirt import driver as nova_driver

    from nova_rbd_backend.virt import fatal

    class Stop(Exception):
        pass

    def stop(_check):
        raise Stop

    made = new_driver()
    with monkeypatch.context() as patch:
        patch.setattr(nova_driver.LibvirtDriver, "init_host", lambda *_: None)
        patch.setattr(fatal, "require", stop)

        def start():
            with pytest.raises(Stop):
                made.init_host("here")

        yield start


def test_guest_is_thawed_at_the_next_start(started, settings, guest, tmp_path):
    from nova_rbd_backend.virt.snapshot import frozen

    kill_between_freeze_and_thaw(settings, guest)
    assert state_of(guest) == "frozen"
    assert [path.name for path in marks(tmp_path)] == [guest.UUIDString()]
    started()
    wait_for("it is thawed", lambda: state_of(guest) == "thawed", 30)
    wait_for("its mark is gone", lambda: not marks(tmp_path), 10)
    assert not frozen.is_being_thawed(guest.UUIDString())


def test_dead_agent_does_not_delay_a_start(
    started, settings, guest, tmp_path, monkeypatch, caplog
):
    from nova_rbd_backend.virt.snapshot import frozen

    monkeypatch.setattr(frozen, "_ATTEMPTS", 2)
    monkeypatch.setattr(frozen, "ANSWER_SECONDS", 1)
    kill_between_freeze_and_thaw(settings, guest)
    guest.suspend()
    started()
    # A freeze would be undone by this thaw.
    assert frozen.is_being_thawed(guest.UUIDString())
    wait_for(
        "the failure is logged",
        lambda: not frozen.is_being_thawed(guest.UUIDString()),
        30,
    )
    assert f"virsh domfsthaw {guest.UUIDString()}" in caplog.text
    assert len(marks(tmp_path)) == 1
    guest.resume()
    started()
    wait_for("it is thawed", lambda: state_of(guest) == "thawed", 30)


@pytest.mark.parametrize("left", ["nothing", "its domain"])
def test_mark_of_a_guest_that_does_not_run_is_removed(
    started, settings, compute_host, tmp_path, left
):
    from nova_rbd_backend.virt.snapshot import frozen

    instance_uuid = str(uuid.uuid4())
    frozen.mark(instance_uuid)
    with contextlib.closing(libvirt.open(compute_host.libvirt_uri)) as here:
        if left == "its domain":
            xml = DOMAIN.format(name="off", uuid=instance_uuid, disk="")
            domain = here.defineXML(xml)
        started()
        wait_for("its mark is gone", lambda: not marks(tmp_path), 10)
        if left == "its domain":
            assert not domain.isActive()
            domain.undefine()
