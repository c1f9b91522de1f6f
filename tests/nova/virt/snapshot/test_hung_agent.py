# SPDX-License-Identifier: Apache-2.0

"""A real guest agent that takes its time to freeze or thaw file systems.

It answers libvirt's guest-sync, and then runs a hook that does not end.
"""

import json
import time

import libvirt_qemu
import pytest

from tests.nova.drivers import new_driver
from tests.nova.virt.snapshot.agent import marks, state_of
from tests.testbed.process import wait_for

LIMIT_SECONDS = 2
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
    """Let the agent run a script in the guest."""
    command = {
        "execute": "guest-exec",
        "arguments": {"path": "/bin/sh", "arg": ["-c", script]},
    }
    libvirt_qemu.qemuAgentCommand(domain, json.dumps(command), 5, 0)


@pytest.fixture(scope="module")
def slow(guest):
    """Return a function that sets how long the agent takes, in seconds."""
    run(guest, HOOKED)
    time.sleep(3)
    wait_for("the agent answers", lambda: state_of(guest), 30, 0.5)

    def become(freeze=0, thaw=0):
        run(
            guest,
            f"echo {freeze} >/run/slow-freeze; echo {thaw} >/run/slow-thaw",
        )
        time.sleep(1)

    return become


@pytest.fixture
def snapshot(settings, guest, monkeypatch):
    """Return a function that freezes and thaws the guest as a snapshot does.

    It notes the guest's state meanwhile, and how long that took.
    """
    from nova import objects

    from nova_rbd_backend.virt.snapshot import frozen, quiesce

    monkeypatch.setattr(frozen, "ANSWER_SECONDS", LIMIT_SECONDS)
    made = new_driver()

    def snapshot(**properties):
        properties["hw_qemu_guest_agent"] = "yes"
        instance = objects.Instance(
            id=1,
            uuid=guest.UUIDString(),
            image_ref="",
            system_metadata={f"image_{k}": v for k, v in properties.items()},
        )
        began = time.monotonic()
        try:
            with quiesce.scope(made, None, instance), quiesce.frozen():
                snapshot.state = state_of(guest)
        finally:
            snapshot.seconds = time.monotonic() - began

    return snapshot


def test_agent_that_freezes_late(snapshot, slow, guest, tmp_path):
    """The guest is thawed once the agent answers, since it may have frozen."""
    from nova import exception

    slow(freeze=8)
    with pytest.raises(exception.InstanceQuiesceFailed):
        snapshot(os_require_quiesce="yes")
    assert state_of(guest) == "thawed"
    assert marks(tmp_path) == []

    slow()
    snapshot(os_require_quiesce="yes")
    assert snapshot.state == "frozen"
    assert state_of(guest) == "thawed"


def test_agent_that_never_thaws(snapshot, slow, guest, tmp_path, caplog):
    slow(thaw=600)
    snapshot()
    assert snapshot.state == "frozen"
    assert snapshot.seconds < 40
    assert "virsh domfsthaw" in caplog.text
    assert len(marks(tmp_path)) == 1
