# SPDX-License-Identifier: Apache-2.0

"""A real guest agent that takes its time, and a Ceph that does.

The agent answers libvirt's guest-sync, and then runs a hook that takes long to
freeze or thaw the file systems.
"""

import contextlib
import time

import libvirt
import pytest

from tests.nova.conftest import needs_native_nova
from tests.nova.drivers import new_driver
from tests.nova.virt.snapshot.agent import ask, marks, state_of
from tests.testbed.process import wait_for

pytestmark = needs_native_nova

LIMIT_SECONDS = 4
HOOKED = """
cat >/run/hook <<'END'
#!/bin/sh
[ -e /run/slow-$1 ] && sleep $(cat /run/slow-$1)
exit 0
END
chmod +x /run/hook
(
    sleep 1
    agent=$(grep -l '^ld.so' /proc/[0-9]*/comm | cut -d/ -f3)
    set -- $(tr '\\0' ' ' </proc/$agent/cmdline)
    kill $agent
    sleep 1
    exec setsid "$@" -F/run/hook
) </dev/null >/dev/null 2>&1 &
"""


def run(domain, script):
    """Let the agent run a script in the guest; return its pid there."""
    said = ask(domain, "guest-exec", path="/bin/sh", arg=["-c", script])
    return said["pid"]


def is_hooked(domain):
    """Return whether the agent that answers is the one with the hook."""
    look = """
    for comm in $(grep -l '^ld.so' /proc/[0-9]*/comm); do
        grep -q -e -F/run/hook ${comm%comm}cmdline && exit
    done
    exit 1
    """
    with contextlib.suppress(libvirt.libvirtError):
        pid = run(domain, look)
        time.sleep(0.5)
        return ask(domain, "guest-exec-status", pid=pid).get("exitcode") == 0
    return False


@pytest.fixture(scope="module")
def hooked():
    """The UUIDs of the guests whose agent has the hook."""
    return set()


@pytest.fixture
def slow(guest, hooked):
    """Return a function that sets how long the agent takes, in seconds."""
    if guest.UUIDString() not in hooked:
        run(guest, HOOKED)
        wait_for("the agent has its hook", lambda: is_hooked(guest), 60, 0.5)
        hooked.add(guest.UUIDString())

    def become(freeze=0, thaw=0):
        # It may still do what an earlier test has asked for.
        wait_for("the agent answers", lambda: state_of(guest), 60, 0.5)
        run(
            guest,
            f"echo {freeze} >/run/slow-freeze; echo {thaw} >/run/slow-thaw",
        )
        time.sleep(1)

    return become


@pytest.fixture
def snapshot(settings, guest, monkeypatch, nova_conf):
    """Return a function that freezes and thaws the guest as a snapshot does.

    It calls ``ceph`` in place of making the snap. Without that, it notes the
    guest's state meanwhile, however long the guest is frozen for that. It
    also notes how long everything took.
    """
    from nova import objects

    from nova_rbd_backend.virt.snapshot import frozen, quiesce

    monkeypatch.setattr(frozen, "ANSWER_SECONDS", LIMIT_SECONDS)
    made = new_driver()

    def look():
        snapshot.state = state_of(guest)

    def snapshot(ceph=None, **properties):
        properties["hw_qemu_guest_agent"] = "yes"
        instance = objects.Instance(
            id=1,
            uuid=guest.UUIDString(),
            image_ref="",
            system_metadata={f"image_{k}": v for k, v in properties.items()},
        )
        began = time.monotonic()
        limit = 30 if ceph is None else 0.8
        nova_conf(group="nova_rbd", freeze_limit_seconds=limit)
        try:
            with quiesce.scope(made, None, instance), quiesce.frozen():
                (ceph or look)()
        finally:
            snapshot.seconds = time.monotonic() - began

    return snapshot


def test_agent_that_freezes_late(snapshot, slow, guest, tmp_path):
    """The guest is thawed once the agent answers, since it may have frozen."""
    from nova import exception

    slow(freeze=10)
    with pytest.raises(exception.InstanceQuiesceFailed):
        snapshot(os_require_quiesce="yes")
    assert state_of(guest) == "thawed"
    assert marks(tmp_path) == []

    slow()
    snapshot(os_require_quiesce="yes")
    assert snapshot.state == "frozen"
    assert state_of(guest) == "thawed"


def test_guest_is_thawed_while_ceph_hangs(snapshot, slow, guest, caplog):
    from nova import exception

    def hang():
        wait_for("it is thawed", lambda: state_of(guest) == "thawed", 20, 0.1)

    caplog.set_level("INFO")
    slow()
    snapshot(ceph=hang)
    assert "as after a power loss" in caplog.text
    assert "Ceph took longer" in caplog.text
    with pytest.raises(exception.InstanceQuiesceFailed, match="Ceph took"):
        snapshot(ceph=hang, os_require_quiesce="yes")


def test_guest_is_thawed_early_in_nova_26(snapshot, slow, guest, monkeypatch):
    """Nova 26 has no InstanceQuiesceFailed."""
    from nova import exception

    def hang():
        wait_for("it is thawed", lambda: state_of(guest) == "thawed", 20, 0.1)

    monkeypatch.delattr(exception, "InstanceQuiesceFailed", raising=False)
    slow()
    snapshot(ceph=hang)
    with pytest.raises(exception.Invalid, match="Ceph took"):
        snapshot(ceph=hang, os_require_quiesce="yes")


def test_snapshot_waits_for_a_thaw_under_way(snapshot, slow, tmp_path):
    """Otherwise the thaw could undo the freeze of the next snapshot."""
    slow(thaw=1)
    # The thaw begins after 0.8 s, and takes 1 s.
    snapshot(ceph=lambda: time.sleep(1.2))
    assert marks(tmp_path) == []


def test_guest_that_is_still_to_be_thawed(snapshot, slow, guest, monkeypatch):
    """That thaw would undo a freeze; see test_frozen.py."""
    from nova import exception

    from nova_rbd_backend.virt.snapshot import frozen

    slow()
    monkeypatch.setattr(frozen, "_left", {guest.UUIDString()})
    snapshot()
    assert snapshot.state == "thawed"
    with pytest.raises(exception.InstanceQuiesceFailed, match="still to be"):
        snapshot(os_require_quiesce="yes")


def test_agent_that_never_thaws(snapshot, slow, guest, tmp_path, caplog):
    """It does after 30 s, for the tests after this one."""
    slow(thaw=30)
    snapshot()
    assert snapshot.state == "frozen"
    assert snapshot.seconds < 40
    assert "virsh domfsthaw" in caplog.text
    assert len(marks(tmp_path)) == 1
