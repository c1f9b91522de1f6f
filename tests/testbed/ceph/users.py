# SPDX-License-Identifier: Apache-2.0

"""Ceph users of the testbed: their caps, from the files in etc/, and keys.

The caps of nova and glance are read from the very files that operators get,
so that tests and documentation cannot differ.
"""

import base64
import dataclasses
import os
import pathlib
import re
import struct
import subprocess
import time
from collections.abc import Iterable, Mapping

from tests.testbed import paths

CAPS_FOLDER = paths.CHECKOUT / "etc" / "ceph"
# As Ceph's documentation gives them to Cinder. They allow nothing in Nova's
# pools, and the caps of Nova's user allow nothing in pool volumes.
CINDER_CAPS = {
    "mon": "profile rbd",
    "mgr": "profile rbd pool=volumes",
    "osd": "profile rbd pool=volumes, profile rbd-read-only pool=images",
}
# The types of keys: aes, and aes256k, which Ceph 20 makes.
KEY_BYTES = {1: 16, 2: 32}
CAPS_LINE = re.compile(r'\s*caps (?P<daemon>mon|mgr|osd) = "(?P<caps>.+)"$')


@dataclasses.dataclass(frozen=True)
class User:
    """A cephx entity; ``key`` stays out of its repr, and so out of logs."""

    entity: str
    caps: Mapping[str, str]
    key: str = dataclasses.field(repr=False)

    def keyring(self) -> str:
        lines = [f"[{self.entity}]", f"\tkey = {self.key}"]
        lines += [f'\tcaps {d} = "{c}"' for d, c in self.caps.items()]
        return "\n".join(lines) + "\n"


def documented_caps(user: str) -> dict[str, str]:
    """Return the caps of client.<user> by daemon, as etc/ceph has them."""
    path = CAPS_FOLDER / f"client.{user}.keyring"
    matches = map(CAPS_LINE.match, path.read_text().splitlines())
    caps = {m["daemon"]: m["caps"] for m in matches if m}
    if not caps:
        raise ValueError(f"no caps line in {path}")
    return caps


def key_type(authtool: str = "ceph-authtool") -> int:
    """Return which type of keys a release of Ceph makes.

    :param authtool: the program of that release
    """
    key = subprocess.run(
        [authtool, "--gen-print-key"],
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    ).stdout
    return struct.unpack_from("<h", base64.b64decode(key))[0]


def new_key(kind: int) -> str:
    """Return a new secret in Ceph's base64 form (CryptoKey).

    :param kind: a type of KEY_BYTES
    """
    size = KEY_BYTES[kind]
    head = struct.pack("<hIIh", kind, int(time.time()), 0, size)
    return base64.b64encode(head + os.urandom(size)).decode()


def make_users(osds: Iterable[int], clients: int, daemons: int) -> list[User]:
    """Return all users a new cluster starts with, each with a new key.

    :param clients: what keys clients have, as :func:`new_key`
    :param daemons: what keys the cluster's own daemons have
    """
    daemon = {"mon": "allow profile osd", "mgr": "allow profile osd"}
    caps = {
        "mon.": {"mon": "allow *"},
        "mgr.x": {"mon": "allow profile mgr", "osd": "allow *"},
        "client.admin": dict.fromkeys(("mon", "mgr", "osd"), "allow *"),
        "client.nova": documented_caps("nova"),
        "client.glance": documented_caps("glance"),
        "client.cinder": CINDER_CAPS,
        "client.nobody": {"mon": "allow r"},
    }
    caps |= {f"osd.{n}": daemon | {"osd": "allow *"} for n in osds}
    return [
        User(
            entity,
            its_caps,
            new_key(clients if entity.startswith("client.") else daemons),
        )
        for entity, its_caps in caps.items()
    ]


def write_private(path: pathlib.Path, text: str) -> None:
    """Write a file that its owner alone can read, from its first byte on."""
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with open(os.open(path, flags, 0o600), "w") as file:
        file.write(text)


def read_key(keyring: pathlib.Path) -> str:
    """Return the key in a keyring file of one user."""
    for line in keyring.read_text().splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "key":
            return value.strip()
    raise ValueError(f"no key in {keyring}")
