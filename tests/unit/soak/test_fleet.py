# SPDX-License-Identifier: Apache-2.0

"""Which server a step is done to."""

from tests.soak.fleet import MOST_SERVERS, Fleet, Member
from tests.soak.plan import Step


def step(action, pick=0.0, busy=False):
    return Step(action, pick, twice=False, busy=busy, pause_seconds=0)


def server(status="ACTIVE", task=None):
    return {"status": status, "OS-EXT-STS:task_state": task}


def fleet(*ids):
    made = Fleet()
    for server_id in ids:
        made.add(Member(server_id, "soak-1"))
    return made


def test_only_servers_that_are_ready():
    some = fleet("off", "on", "busy")
    servers = {
        "off": server("SHUTOFF"),
        "on": server(),
        "busy": server(task="rebooting"),
        "of somebody else": server(),
    }
    for pick in (0.0, 0.99):
        assert some.chosen(step("pause", pick), servers).id == "on"
        assert some.chosen(step("start", pick), servers).id == "off"
    assert some.chosen(step("unrescue"), servers) is None


def test_pick_chooses_among_them():
    servers = {"a": server(), "b": server()}
    some = fleet(*servers)
    assert some.chosen(step("pause", 0.49), servers).id == "a"
    assert some.chosen(step("pause", 0.5), servers).id == "b"


def test_meetings():
    servers = {"a": server(), "b": server()}
    some = fleet(*servers)
    member = some.chosen(step("pause"), servers)
    with some.used(member):
        assert some.chosen(step("pause"), servers).id == "b"
        assert some.chosen(step("stop", busy=True), servers) is member
        assert some.met() == set()
        with some.used(member):
            assert some.met() == {"a"}
    assert some.met() == {"a"}


def test_servers_that_are_gone_make_room():
    some = fleet(*map(str, range(MOST_SERVERS)))
    with some.place() as room:
        assert not room
    some.chosen(step("pause"), {})
    with some.place() as room:
        assert room
