# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""Nova's tests that cannot apply to this backend, from the table beside."""

import dataclasses
import pathlib
import tomllib

TABLE = pathlib.Path(__file__).with_name("not_applicable.toml")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One of Nova's tests; ``ours`` shows the same behaviour."""

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
    """The full names for one release of Nova, with their entries."""
    return {
        entry.test: entry
        for entry in entries()
        if entry.first <= release <= entry.last
    }
