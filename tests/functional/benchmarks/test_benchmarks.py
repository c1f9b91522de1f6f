# SPDX-License-Identifier: Apache-2.0

"""Every benchmark runs with small sizes, and has figures of all sides."""

import json
import pathlib
import subprocess
import sys

import pytest

CHECKOUT = pathlib.Path(__file__).parents[3]
SIDES = {"plugin", "in-tree", "floor"}
TOOLS = {"plugin", "in-tree", "rbd import", "qemu-img convert"}
SECONDS = 600
pytestmark = pytest.mark.timeout(SECONDS + 30)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The output and the figures of one quick run of all benchmarks."""
    figures = tmp_path_factory.mktemp("benchmarks") / "figures.json"
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks"]
    done = subprocess.run(
        [*command, "--quick", "--json", str(figures)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout, json.loads(figures.read_text())


def medians(run, name):
    """Return the figures of a benchmark by (case, side)."""
    _, figures = run
    return {
        (found["case"], found["side"]): found
        for found in figures[name]["medians"]
    }


@pytest.mark.parametrize(
    ("name", "sides", "cases"),
    [
        ("operations", SIDES, {"boot", "resize", "snapshot", "delete"}),
        ("many_qcow2", SIDES, {"3 on 2"}),
        ("many_rbd", SIDES, {"3 on 2"}),
        ("pool_size", SIDES, {"20", "100"}),
        ("children", SIDES, {"1", "300"}),
        ("many_hosts", {"one host", "each other host"}, {"100", "1000"}),
        ("snapshot_size", SIDES, {"8", "64"}),
        ("first_boot", SIDES, {"qcow2, compressed", "raw"}),
        ("import_speed", TOOLS, {"raw file"}),
        ("one_base", {"plugin"}, {"4", "10"}),
        (
            "thousand_hosts",
            {"plugin"},
            {"0", "10, idle", "10", "10, just started"},
        ),
    ],
)
def test_all_sides_in_all_cases(run, name, sides, cases):
    printed, figures = run
    assert figures[name]["title"] in printed
    assert set(medians(run, name)) == {(c, s) for c in cases for s in sides}


def test_connections_and_programs_of_each_side(run):
    found = medians(run, "operations")
    for case in ("boot", "resize", "snapshot", "delete"):
        assert found[case, "plugin"]["connections"] == 0
        assert found[case, "plugin"]["programs"] == 0
        assert found[case, "in-tree"]["connections"] > 0
        assert found[case, "floor"]["connections"] == 0
    assert found["boot", "in-tree"]["programs"] > 0


def test_copies_are_counted_by_the_cluster(run):
    """The qcow2 image has 16 MiB of data, and 3 instances boot from it."""
    found = medians(run, "many_qcow2")
    case = "3 on 2"
    assert found[case, "in-tree"]["stored_mib"] == pytest.approx(48, abs=8)
    assert found[case, "floor"]["stored_mib"] == pytest.approx(16, abs=8)
    # Both hosts share one base.
    assert found[case, "plugin"]["stored_mib"] == pytest.approx(16, abs=8)
    for key, row in medians(run, "many_rbd").items():
        assert row["stored_mib"] < 8, key


def test_base_is_made_once(run):
    for row in medians(run, "one_base").values():
        assert row["made"] == 1


def test_operations_wait_for_paused_osds(run):
    """The OSDs are paused for 1 s."""
    found = medians(run, "event_loop")
    for side in ("plugin", "in-tree"):
        for work in ("boot", "delete"):
            assert found[f"{work}, OSDs paused", side]["ms"] > 700
    # The in-tree backend connects and opens images on the loop itself.
    assert found["boot, OSDs paused", "in-tree"]["stall_ms"] > 500
