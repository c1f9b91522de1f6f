# SPDX-License-Identifier: Apache-2.0

"""The monitors' addresses, as libvirt and QEMU need them."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class MonAddress:
    """:ivar host: a bare address, IPv6 without brackets
    :ivar msgr2: the port speaks messenger 2 only
    """

    host: str
    port: int
    msgr2: bool


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def from_mon_dump(dump: Mapping[str, Any]) -> tuple[MonAddress, ...]:
    """Read the answer of ``mon dump``: one address per monitor.

    A v1 address is taken when there is one: every librados understands a
    bare host:port as v1, and tries a port it does not know as v2 and v1
    (MonMap::_add_ambiguous_addr, 16.2), so that a v2 port works as well.
    """
    return tuple(addresses[0] for addresses in all_from_mon_dump(dump))


def all_from_mon_dump(
    dump: Mapping[str, Any],
) -> tuple[tuple[MonAddress, ...], ...]:
    """All addresses of each monitor; first the one that is taken above."""
    return tuple(
        tuple(sorted(_all(mon), key=lambda address: address.msgr2))
        for mon in sorted(dump["mons"], key=lambda mon: int(mon["rank"]))
    )


def _all(mon: Mapping[str, Any]) -> Iterator[MonAddress]:
    for address in mon["public_addrs"]["addrvec"]:
        host, port = _split(address["addr"])
        yield MonAddress(host, port, address["type"] == "v2")
