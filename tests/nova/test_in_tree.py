# SPDX-License-Identifier: Apache-2.0

"""Nova's own tests pass with this backend in the place of Nova's.

tools/nova_matrix.sh runs them for all releases of Nova.
"""

import pathlib
import re

import pytest

from tests.nova.conftest import RELEASE
from tests.nova.in_tree import not_applicable, run, suites

pytestmark = pytest.mark.timeout(1800)

CHECKOUT = pathlib.Path(__file__).parents[2]


def passes(suite, threading):
    verdict = run.judge(run.run(suite, threading), RELEASE)
    print(f"{suite}, {threading} threads: {verdict}")
    for test, story in verdict.failed.items():
        print(f"\n{test}\n{story}")
    assert not verdict.failed, ", ".join(verdict.failed)
    assert verdict.passed


@pytest.mark.parametrize("threading", suites.threadings("functional", RELEASE))
def test_functional(threading):
    passes("functional", threading)


def test_unit():
    """Each test passes or is listed as not applicable, and not both."""
    passes("unit", suites.threadings("unit", RELEASE)[0])


def test_list_names_existing_tests_of_ours():
    for entry in not_applicable.entries():
        path, _, name = entry.ours.partition("::")
        source = (CHECKOUT / path).read_text()
        assert re.search(rf"^def {name}\(", source, re.MULTILINE), entry.ours


def test_list_has_each_test_once():
    listed = [entry.test for entry in not_applicable.entries()]
    assert len(listed) == len(set(listed))
