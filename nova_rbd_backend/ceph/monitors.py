# SPDX-License-Identifier: Apache-2.0

"""Read the monitors' addresses as libvirt and QEMU need them."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class MonAddress:
    host: str  # a bare address, IPv6 without brackets
    port: int
    msgr2: bool  # the port speaks messenger 2 only


def from_mon_dump(dump: Mapping[str, Any]) -> tuple[MonAddress, ...]:
    """Return one address of each monitor from the answer of ``mon dump``.

    The v1 address if there is one: every librados reads a bare host:port as
    v1. A v2 address works as well, because librados tries a port that it does
    not know as v2 and as v1 (MonMap::_add_ambiguous_addr, 16.2).
    """
    return tuple(addresses[0] for addresses in all_from_mon_dump(dump))


def all_from_mon_dump(
    dump: Mapping[str, Any],
) -> tuple[tuple[MonAddress, ...], ...]:
    """Return all addresses of each monitor, v1 first, in rank order."""
    return tuple(
        tuple(
            sorted(
                map(_address, mon["public_addrs"]["addrvec"]),
                key=lambda address: address.msgr2,
            )
        )
        for mon in sorted(dump["mons"], key=lambda mon: int(mon["rank"]))
    )


def _address(entry: Mapping[str, Any]) -> MonAddress:
    host, _, port = entry["addr"].rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    return MonAddress(host, int(port), entry["type"] == "v2")
