# SPDX-License-Identifier: Apache-2.0

"""Which faults are put into a source, and which tests are run for them."""

import ast

import pytest

from tests.mutants import __main__ as program
from tests.mutants.covering import IMPORT, Covering
from tests.mutants.mutations import mutants

SOURCE = '''\
"""What it is for."""
LIMIT = 3


def free(pool, entries: int | None = None):
    """Free them."""
    LOG.info("%s", len(entries))
    with claimed(pool):
        for entry in entries:
            if entry.age > LIMIT and not entry.held:
                pool.remove(entry)
    try:
        pool.close()
    except KeyError:
        pool.broken = True
    return len(entries) + 1
'''


def faults(source, lines=None):
    """Return the lines that each fault puts in the place of another."""
    found = [m.diff(source) for m in mutants("it.py", source, lines)]
    return {diff.partition("\n+")[2].strip() for diff in found}


@pytest.mark.parametrize(
    "fault",
    [
        "LIMIT = 4",
        "with __import__('contextlib').nullcontext():",
        "if (not (entry.age > LIMIT and (not entry.held))):",
        "if (entry.age > LIMIT):",
        "if (not entry.held):",
        "if entry.age > LIMIT and (entry.held):",
        "if (entry.age >= LIMIT) and not entry.held:",
        "if (entry.age <= LIMIT) and not entry.held:",
        "pass",
        "raise",
        "pool.broken = False",
        "return None",
        "return len(entries) + 2",
        "return (len(entries) - 1)",
    ],
)
def test_fault(fault):
    assert fault in faults(SOURCE)


def test_each_fault_is_python_and_changes_something():
    for mutant in mutants("it.py", SOURCE):
        assert ast.dump(ast.parse(mutant.apply(SOURCE))) != ast.dump(
            ast.parse(SOURCE)
        )


def test_nothing_else_changes():
    lines = {mutant.first_line for mutant in mutants("it.py", SOURCE)}
    # Texts, annotations and logging are left as they are.
    assert lines == {2, 8, 10, 11, 13, 15, 16}


def test_times_are_not_compared_for_equality():
    assert faults("late = now > end_seconds\n") == {
        "late = (now <= end_seconds)"
    }


def test_columns_are_of_characters():
    assert faults('mark("é", 1)\n', [1]) == {'mark("é", 2)', "pass"}


def test_key_is_new_when_the_file_changes():
    keys = [{m.key for m in mutants("x.py", s)} for s in ("a = 1", "a = 1\n")]
    assert len(keys[0]) == 1
    assert not keys[0] & keys[1]


def test_changed_lines():
    diff = (
        "--- a/x.py\n+++ b/x.py\n@@ -1 +1,2 @@\n-a\n+b\n+c\n"
        "@@ -9,2 +10,0 @@\n-d\n-e\n@@ -20 +19 @@\n-f\n+g\n"
        "--- a/x.rst\n+++ b/x.rst\n@@ -0,0 +1 @@\n+text\n"
    )
    assert program.changed_lines(diff) == {"x.py": {1, 2, 19}}


def test_tests_of_the_file_are_first_then_of_its_folder_then_quick_ones():
    path = "nova_rbd_backend/storage/x.py"
    seconds = {
        "tests/functional/storage/test_x.py::t": 4,
        "tests/contract/storage/test_y.py::t": 3,
        "tests/unit/storage/disks/test_x.py::t": 1,
        "tests/contract/ceph/test_x.py::t": 2,
    }
    covered = Covering({path: {1: {IMPORT}, 2: set(seconds)}}, seconds)
    for line in (1, 2):
        assert covered.tests(path, [line]) == list(seconds)
    assert covered.tests(path, [3]) == []
    assert covered.tests("nova_rbd_backend/y.py", [1]) == []


def test_slow_tests_are_left_out():
    seconds = {"a": 3, "b": 2, "c": 9}
    assert program.within(["a", "b", "c"], seconds, 5) == ["a", "b"]
    assert program.within(["c", "a"], seconds, 5) == ["c"]


def test_tests_of_a_line_follow_it_when_the_file_changes():
    seconds = {"tests/a.py::t": 1.0, "tests/b.py::t": 1.0}
    a, b = ({test} for test in seconds)
    old, new = "1\n2\n3\n4\n", "0\n1\n2\n2.5\nthree\n4\n"
    path = "nova_rbd_backend/x.py"
    covered = Covering({path: {2: a, 3: b, 4: a}}, seconds, {path: old})
    covered.follow(path, new)
    assert covered.lines[path] == {3: a, 4: b, 5: b, 6: a}
