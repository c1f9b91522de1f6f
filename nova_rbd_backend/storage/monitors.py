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

"""The monitors' addresses, as libvirt and QEMU need them."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class MonAddress:
    """:ivar host: a bare address, IPv6 without brackets
    :ivar msgr2: the port speaks messenger 2 only
    """

    host: str
    port: int
    msgr2: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def from_mon_dump(dump: Mapping[str, Any]) -> tuple[MonAddress, ...]:
    """Read the answer of ``mon dump``: one address per monitor.

    A v1 address is taken when there is one: every librados understands a
    bare host:port as v1, and tries a port it does not know as v2 and v1
    (MonMap::_add_ambiguous_addr, 16.2), so that a v2 port works as well.
    """
    return tuple(
        _preferred(mon["public_addrs"]["addrvec"])
        for mon in sorted(dump["mons"], key=lambda mon: int(mon["rank"]))
    )


def all_from_mon_dump(
    dump: Mapping[str, Any],
) -> tuple[frozenset[MonAddress], ...]:
    """The same: all addresses of each monitor, each of which leads to it."""
    return tuple(
        frozenset(
            MonAddress(*_split(each["addr"]), each["type"] == "v2")
            for each in mon["public_addrs"]["addrvec"]
        )
        for mon in dump["mons"]
    )


def _preferred(addrvec: list[dict[str, Any]]) -> MonAddress:
    # "v1" sorts before "v2"
    first = min(addrvec, key=lambda address: str(address["type"]))
    host, port = _split(first["addr"])
    return MonAddress(host, port, first["type"] == "v2")
