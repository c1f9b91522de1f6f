# SPDX-License-Identifier: Apache-2.0

"""The tables of how long the tests take."""

from tests import durations

FOUND = [
    {"test": "tests/unit/a/x.py::t", "lane": "gw1", "seconds": 30.0},
    {"test": "tests/e2e/y.py::t", "lane": "gw0", "seconds": 600.0},
    {"test": "tests/unit/x.py::u", "lane": "gw0", "seconds": 60.0},
]


def test_minutes_by_suite_and_lane():
    assert durations.by_suite(FOUND) == [
        ("suite", "tests", "gw0", "gw1", "minutes"),
        ("e2e", "1", "10.0", "0.0", "10.0"),
        ("unit", "2", "1.0", "0.5", "1.5"),
        ("all", "3", "11.0", "0.5", "11.5"),
    ]


def test_slowest_are_first(monkeypatch):
    monkeypatch.setattr(durations, "SLOWEST", 2)
    assert durations.slowest(FOUND)[1:] == [
        ("tests/e2e/y.py::t", "600"),
        ("tests/unit/x.py::u", "60"),
    ]


def test_table():
    assert durations.table([("suite", "x"), ("e2e", "1.0")]) == [
        "=====  ===",
        "suite  x",
        "=====  ===",
        "e2e    1.0",
        "=====  ===",
    ]
