# SPDX-License-Identifier: Apache-2.0

"""Nova's tests that cannot apply to this backend, read from the table."""

import dataclasses
import pathlib
import tomllib

TABLE = pathlib.Path(__file__).with_name("not_applicable.toml")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One of Nova's tests; the test ``ours`` shows the same behaviour."""

    test: str
    why: str
    ours: str
    first: int
    last: int


def entries():
    """Yield the table's entries."""
    with TABLE.open("rb") as file:
        groups = tomllib.load(file)["group"]
    for group in groups:
        for owner, tests in group["tests"].items():
            for name, ours in tests.items():
                yield Entry(
                    f"nova.tests.{owner}.{name}",
                    group["why"],
                    ours,
                    group.get("first", 0),
                    group.get("last", 1000),
                )


def not_applicable(release):
    """Return full name -> entry for one release of Nova."""
    return {
        entry.test: entry
        for entry in entries()
        if entry.first <= release <= entry.last
    }
