# SPDX-License-Identifier: Apache-2.0

"""A lasting state is logged when it begins, when it changes, once a day."""

import uuid

import pytest

from nova_rbd_backend.virt.background import lasting


class Runs:
    """The runs of a background work, and what they have logged."""

    def __init__(self):
        self._states = lasting.States()
        self.logged = []

    def find(self, **states):
        with self._states.run():
            for what, state in states.items():
                self._states.tell(what, state, self.logged.append, what)


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(lasting.time, "monotonic", lambda: now[0])
    return now


def test_state_that_lasts(clock):
    runs = Runs()
    for _ in range(3):
        runs.find(a="", b="x")
    assert runs.logged == ["a", "b"]
    clock[0] += lasting.AGAIN_SECONDS
    runs.find(a="", b="x")
    assert runs.logged == ["a", "b"] * 2


def test_state_that_changes(clock):
    runs = Runs()
    runs.find(a="x")
    runs.find(a="y")
    runs.find(a="x")
    assert runs.logged == ["a"] * 3


def test_state_that_ends_and_begins_again(clock):
    runs = Runs()
    runs.find(a="x", b="x")
    runs.find(b="x")
    runs.find(a="x", b="x")
    assert runs.logged == ["a", "b", "a"]


def test_run_that_fails_ends_no_state(clock):
    runs = Runs()
    runs.find(a="x")
    with pytest.raises(RuntimeError), runs._states.run():
        raise RuntimeError
    runs.find(a="x")
    assert runs.logged == ["a"]


def test_run_that_does_not_look_at_everything_ends_no_state(clock):
    runs = Runs()
    runs.find(a="x", b="x")
    with runs._states.run():
        runs._states.keep()
    runs.find(a="x")
    assert runs.logged == ["a", "b"]
    runs.find(a="x", b="x")
    assert runs.logged == ["a", "b", "b"]


@pytest.mark.parametrize(
    "text",
    [
        "Glance: Conflict (HTTP 409) (Request-ID: req-{0})",
        "Timed out waiting for a reply to message ID {0.hex}",
    ],
)
def test_request_that_fails_again_is_the_same_state(clock, text):
    runs = Runs()
    for _ in range(3):
        runs.find(a=text.format(uuid.uuid4()))
    runs.find(a="another " + text.format(uuid.uuid4()))
    assert runs.logged == ["a"] * 2
