# SPDX-License-Identifier: Apache-2.0

"""A counter that goes back is found in what the guests say."""

import json
import types

import pytest

from tests.soak.counters import Counter, Listener
from tests.soak.journey import Journey


def marker(counter, missing=0):
    facts = {"boots": 1, "counter": counter, "missing": missing}
    return f"GUEST-MARKER {json.dumps(facts)}"


def heard(counter, *lines):
    return [wrong for line in lines if (wrong := counter.hear(line))]


def test_guest_that_goes_on():
    counter = Counter(40)
    said = ("SeaBIOS", marker(43), "GUEST-COUNTER 60", "GUEST-COUNTER 80\r")
    assert heard(counter, *said) == []
    assert counter.safe == 80


def test_disk_that_lost_what_was_safe():
    counter = Counter(0)
    assert heard(counter, "GUEST-COUNTER 60", marker(59)) == [
        "came up with 59 after 60 was safe"
    ]


def test_disk_with_holes():
    assert heard(Counter(0), marker(60, missing=1)) == [
        "came up without 1 numbers below 60"
    ]


def test_number_that_the_guest_knows_to_be_lost():
    counter = Counter(0)
    error = "GUEST-COUNTER-ERROR 7"
    assert heard(counter, error, marker(60, missing=1)) == [error]


def test_line_that_was_cut_short():
    counter = Counter(0)
    lines = ("GUEST-COUNTER 120", "GUEST-COUNTER 1", "GUEST-COUNTER 140")
    assert heard(counter, *lines) == []


def test_guest_that_counts_below():
    lines = ("GUEST-COUNTER 120", "GUEST-COUNTER 20", "GUEST-COUNTER 40")
    assert heard(Counter(0), *lines) == ["announces 40 after 120"]


def test_rescued_guest_is_ignored_but_not_what_it_was_before():
    counter = Counter(0)
    heard(counter, "GUEST-COUNTER 120")
    safe = counter.safe
    counter.hold()
    assert heard(counter, marker(0), "GUEST-COUNTER 20") == []
    counter.release(safe)
    assert heard(counter, marker(100)) == [
        "came up with 100 after 120 was safe"
    ]


def test_nothing_is_known_of_other_data():
    counter = Counter(120)
    counter.hold()
    counter.release(None)
    assert heard(counter, marker(0, missing=9), "GUEST-COUNTER 20") == []
    assert heard(counter, marker(0)) == ["came up with 0 after 20 was safe"]


def test_nothing_is_known_if_two_actions_change_the_data():
    counter = Counter(120)
    counter.hold()
    counter.hold()
    assert counter.safe is None


@pytest.fixture
def hosts(tmp_path):
    return [
        types.SimpleNamespace(folder=tmp_path / name) for name in ("h1", "h2")
    ]


def write(host, text):
    path = host.folder / "state/instances/ID/console.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as console:
        console.write(text)


def test_consoles_of_all_hosts(hosts, tmp_path):
    journey = Journey(tmp_path / "log")
    listener = Listener(hosts, journey)
    listener.expect("ID", Counter(0))
    write(hosts[0], "GUEST-COUNTER 60\nGUEST-COU")
    listener.poll()
    write(hosts[0], "NTER 80\n")
    assert listener.safe("ID").safe == 80
    write(hosts[1], marker(80) + "\nGUEST-COUNTER 100\n")
    listener.poll()
    assert journey.violations == []
    write(hosts[1], marker(99) + "\n")
    listener.poll()
    assert journey.violations == [
        "guest of ID on h2: came up with 99 after 100 was safe"
    ]


def test_console_of_a_server_that_comes_back(hosts, tmp_path):
    journey = Journey(tmp_path / "log")
    listener = Listener(hosts, journey)
    listener.expect("ID", Counter(0))
    write(hosts[0], "GUEST-COUNTER 60\n" + "x" * 100 + "\n")
    listener.poll()
    (hosts[0].folder / "state/instances/ID/console.log").unlink()
    write(hosts[0], marker(59) + "\n")
    listener.poll()
    assert len(journey.violations) == 1


def test_fault_explains_a_write_that_failed(hosts, tmp_path):
    journey = Journey(tmp_path / "log")
    listener = Listener(hosts, journey)
    listener.expect("ID", Counter(0))
    with journey.fault("kill_osd"):
        write(hosts[0], "GUEST-COUNTER-ERROR 61\n")
        listener.poll()
    assert journey.violations == []
    assert "GUEST-COUNTER-ERROR 61" in journey.path.read_text()
