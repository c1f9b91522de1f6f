# SPDX-License-Identifier: Apache-2.0

"""What tools/matrix.sh runs, and how it counts what has passed."""

import pytest

from tests.matrix import suite as suites


def commands(*words):
    return {each.name: each.command for each in suites.chosen(words, ["-x"])}


def test_tests_of_one_suite_share_a_row():
    test = ["tools/test.sh", "--no-linters"]
    words = "unit", "tests/nova/virt", "nova/in_tree"
    assert commands(*words) == {
        "unit": [*test, "tests/unit", "-x"],
        "nova": [*test, "tests/nova/virt", "tests/nova/in_tree", "-x"],
    }
    assert list(commands("ceph")) == ["contract", "functional", "nova"]


def test_programs_get_no_options_of_pytest():
    assert commands("demo", "benchmark") == {
        "demo": ["tools/demo.sh", "--name", "matrix"],
        "benchmark": ["tools/benchmark.sh", "--quick"],
    }


@pytest.mark.parametrize(
    ("code", "output", "expected"),
    [
        (0, "== 9 tests ==\n== 233 passed, 1 skipped in 87.13s ==", (233, 0)),
        (1, "== 2 failed, 3 passed, 4 errors in 1.0s ==\n", (3, 6)),
        (4, "ERROR: file or directory not found: tests/x", (0, 1)),
        (0, "== 1 skipped in 0.1s ==\n", (0, 1)),
    ],
)
def test_count_of_tests(code, output, expected):
    assert suites.tests(code, output) == expected


DEMO = """
step   result
a   1  ok

step   seconds
boot   1.2  ok
clone  0.1  ok
"""


@pytest.mark.parametrize(
    ("code", "output", "expected"),
    [(0, DEMO, (2, 0)), (1, DEMO, (2, 1)), (1, "error: no space", (0, 1))],
)
def test_count_of_the_steps_of_the_demo(code, output, expected):
    assert suites.steps(code, output) == expected
