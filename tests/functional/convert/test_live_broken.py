# SPDX-License-Identifier: Apache-2.0

"""nova-rbd convert --live when a call fails while the guest is paused.

The guest never runs on a copy that a later run would take for unfinished.
"""

import os

import libvirt
import libvirt_qemu
import pytest

from nova_rbd_backend import errors, names
from nova_rbd_backend.ceph import qemu_img
from nova_rbd_backend.convert import live, rbd_disk
from nova_rbd_backend.domains.guest import Guest
from tests.functional.convert.local_instance import ASIDE, MIB
from tests.testbed.ceph import pools
from tests.testbed.process import wait_for

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def content():
    return {n: os.urandom(MIB) + bytes(MIB) for n in ("disk", "disk.eph0")}


@pytest.fixture
def running(local, content):
    """A domain without an operating system, so only QEMU's copy writes."""
    for dev, (name, data) in zip(("vda", "vdb"), content.items(), strict=True):
        local.path(name).write_bytes(data)
        local.add(name, dev, "raw")
    local.define()
    local.start()
    return local


@pytest.fixture
def fails(monkeypatch):
    """Return a function that makes a method fail.

    The numbers of the calls that fail, from 1, are in ``calls``.
    """

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


def is_converted(local, vms, content):
    for name, data in content.items():
        with vms.open(local.image(name)) as disk:
            assert disk.read(0, 2 * MIB) == data
    assert local.sources() == {
        "vda": f"vms/{local.image('disk')}",
        "vdb": f"vms/{local.image('disk.eph0')}",
    }


def is_as_before(local, vms):
    assert state(local) == libvirt.VIR_DOMAIN_RUNNING
    assert local.sources(live=True) == local.sources()
    assert local.sources()["vda"] == str(local.path("disk"))
    assert local.files() == {"disk", "disk.eph0"}
    assert vms.directory.names(local.uuid) == []


def state(local):
    return local.domain.state()[0]


def write_as_guest(local, number=0):
    """Write through QEMU, as the guest's operating system would.

    :param number: of the disk
    """
    device = f"/machine/peripheral/virtio-disk{number}/virtio-backend"
    for command in (f"write -P {ord('G')} 0 512", "flush"):
        said = libvirt_qemu.qemuMonitorCommand(
            local.domain,
            f'qemu-io -d {device} "{command}"',
            libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP,
        )
        assert not said, said


def written(data):
    return b"G" * 512 + data[512:]


@pytest.fixture
def while_it_copies(monkeypatch):
    """Return a function: do something once QEMU copies both disks."""

    def install(do):
        real, count = rbd_disk.Mirror.hide, 0

        def hide(mirror):
            nonlocal count
            real(mirror)
            count += 1
            if count == 2:
                do()

        monkeypatch.setattr(rbd_disk.Mirror, "hide", hide)

    return install


def test_copy_is_ended_by_somebody(
    vms, running, content, while_it_copies, capsys
):
    while_it_copies(lambda: running.domain.blockJobAbort("vdb"))
    assert running.convert_here("--live") == 1
    line = f"the copy of {running.path('disk.eph0')} ended"
    assert line in capsys.readouterr().err
    is_as_before(running, vms)
    assert running.convert_here("--live") == 0
    is_converted(running, vms, content)


@pytest.fixture
def big(local):
    """A running domain with a disk whose copy takes a while."""
    local.path("disk").write_bytes(os.urandom(64 * MIB))
    local.add("disk", "vda", "raw")
    local.define()
    local.start()
    return local


@pytest.fixture
def slowly(monkeypatch):
    """Let QEMU copy slowly, and return what ends that."""
    real = Guest.mirror

    def mirror(guest, dev, xml):
        real(guest, dev, xml)
        guest._domain.blockJobSetSpeed(dev, 1)

    with monkeypatch.context() as patch:
        patch.setattr(Guest, "mirror", mirror)
        yield patch.undo


@pytest.fixture
def stalled(ceph):
    """Return a function that lets Ceph answer no client, or answer again."""
    with ceph.admin() as admin:

        def stall(ends=False):
            verb = "unset" if ends else "set"
            pools.command(admin, f"osd {verb}", key="pause")

        yield stall
        stall(ends=True)


@pytest.mark.timeout(150)
def test_ceph_does_not_answer_while_it_copies(
    vms, big, slowly, stalled, monkeypatch, capsys
):
    """The program ends, and once Ceph answers again QEMU's copying too."""
    monkeypatch.setattr(live, "STALL_SECONDS", 2)
    hide = rbd_disk.Mirror.hide

    def then_stalled(mirror):
        hide(mirror)
        stalled()

    with monkeypatch.context() as patch:
        patch.setattr(rbd_disk.Mirror, "hide", then_stalled)
        assert big.convert_here("--live") == 1
    line = capsys.readouterr().err
    assert f"the copy of {big.path('disk')} made no progress for 2 s" in line
    assert "has its old disks" in line
    stalled(ends=True)
    wait_for("it ends", lambda: not big.domain.blockJobInfo("vda"), 30)
    assert state(big) == libvirt.VIR_DOMAIN_RUNNING
    assert big.sources(live=True) == {"vda": str(big.path("disk"))}
    slowly()
    assert big.convert_here("--live") == 0
    assert big.is_same(vms, "disk", big.path(f"disk{ASIDE}"), "raw")


def test_mark_fails(vms, running, content, fails):
    """The guest keeps its old disks, and the next run starts from scratch."""
    fails(rbd_disk.Mirror, "mark", {2})
    before = running.sources()
    assert running.convert_here("--live") != 0
    assert state(running) == libvirt.VIR_DOMAIN_RUNNING
    assert running.sources(live=True) == before
    assert vms.directory.names(running.uuid) == []
    assert running.convert_here("--live") == 0
    is_converted(running, vms, content)


def test_copy_of_a_run_without_the_guest(vms, running, content, fails):
    """QEMU copies the disk anew, as the guest has written to it since."""
    running.stop()
    fails(qemu_img, "copy", {2})
    assert running.convert_here() != 0
    # While Ceph does not answer, a draft is not undone.
    kept, draft = vms.directory.names(running.uuid)
    assert kept == running.image("disk")
    assert names.final_name(draft) == running.image("disk.eph0")
    running.start()
    write_as_guest(running)
    assert running.convert_here("--live") == 0
    content["disk"] = written(content["disk"])
    is_converted(running, vms, content)


def test_second_disk_fails(vms, running, content, fails):
    """The first disk stays in Ceph, and the next run converts the second."""
    fails(Guest, "pivot", {2})
    assert running.convert_here("--live") != 0
    assert state(running) == libvirt.VIR_DOMAIN_RUNNING
    found = running.sources(live=True)
    assert found["vda"] == f"vms/{running.image('disk')}"
    assert found["vdb"] == str(running.path("disk.eph0"))
    assert vms.directory.names(running.uuid) == [running.image("disk")]
    write_as_guest(running)
    assert running.convert_here("--live") == 0
    content["disk"] = written(content["disk"])
    is_converted(running, vms, content)


@pytest.mark.parametrize("then", ["next run", "off", "resumed", "restarted"])
def test_guest_stays_paused(vms, running, content, fails, capsys, then):
    """The guest stays paused with one disk in Ceph.

    The next run succeeds, whatever is done to the guest before it.
    """
    fails(Guest, "pivot", {2})
    fails(rbd_disk.Mirror, "show", {5})
    assert running.convert_here("--live") != 0
    assert "stands still" in capsys.readouterr().err
    assert state(running) == libvirt.VIR_DOMAIN_PAUSED
    if then in ("resumed", "restarted"):
        running.domain.resume()
        write_as_guest(running)
        content["disk"] = written(content["disk"])
    if then == "resumed":
        write_as_guest(running, 1)
    if then in ("off", "restarted"):
        running.stop()
        # libvirt has put the disk that moved into the domain's definition.
        assert running.sources() == {
            "vda": f"vms/{running.image('disk')}",
            "vdb": str(running.path("disk.eph0")),
        }
    if then == "restarted":
        running.start()
        write_as_guest(running, 1)
    if then in ("resumed", "restarted"):
        content["disk.eph0"] = written(content["disk.eph0"])
    live = [] if then == "off" else ["--live"]
    assert running.convert_here(*live) == 0
    is_converted(running, vms, content)
    if live:
        assert state(running) == libvirt.VIR_DOMAIN_RUNNING
