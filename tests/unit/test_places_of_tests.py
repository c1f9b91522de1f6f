# SPDX-License-Identifier: Apache-2.0

"""The tests of a folder of the product have its path in each suite."""

import collections
import pathlib

import pytest

from tests.conftest import LANES

TESTS = pathlib.Path(__file__).parents[1]
PRODUCT = TESTS.parent / "nova_rbd_backend"
SUITES = ("unit", "contract", "functional", "nova", "e2e")
# Folders of suites that match no folder of the product.
OTHER_FOLDERS = {
    "benchmarks",
    "in_tree",
    "matrix",
    "mutants",
    "soak",
    "testbed",
    "xml",
}
# Python and pytest require these names.
COMMON_NAMES = {"__init__.py", "__main__.py", "conftest.py"}


def test_file_names_are_unique():
    found = collections.defaultdict(list)
    for path in TESTS.rglob("*.py"):
        if path.name not in COMMON_NAMES:
            found[path.name].append(path.relative_to(TESTS))
    assert [paths for paths in found.values() if len(paths) > 1] == []


@pytest.mark.parametrize("suite", SUITES)
def test_folders_match_the_product(suite):
    for path in (TESTS / suite).rglob("*"):
        folder = path.parent.relative_to(TESTS / suite)
        if path.is_file() and path.parent.name != "__pycache__":
            of_product = (PRODUCT / folder).is_dir()
            assert of_product or OTHER_FOLDERS & set(folder.parts), folder


def test_all_suites_are_checked():
    suites = {path.parent.name for path in TESTS.glob("*/__init__.py")}
    others = {"matrix", "mutants", "soak", "support", "testbed"}
    assert suites - others == set(SUITES)


def test_lanes_exist():
    for path in LANES:
        assert (TESTS.parent / path).exists(), path
