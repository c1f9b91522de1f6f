#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0

"""Program: stand in for ``ssh`` and ``scp`` on a simulated host.

Nova copies between compute hosts, and makes folders there, by ssh. The hosts
here share the machine's process table, so that this program can enter another
host's namespaces, with no daemon and no keys. It is called by a link
h<number>/bin/{ssh,scp}.
"""

import json
import os
import pathlib
import sys
from collections.abc import Sequence

# The options of ssh(1) and scp(1) that have a value, as far as Nova uses them.
WITH_VALUE = ("-o", "-i", "-l", "-p", "-P")
SSH_FAILED = 255


def first_pid(hosts: pathlib.Path, address: str) -> int:
    """The pid of the process that holds the host's namespaces.

    :param address: the host's my_ip in Nova, 127.x.y.1<number>, or its name
    :raises SystemExit: there is no such host, or it is switched off
    """
    number = address.rpartition("@")[2].strip("[]")[-1]
    record = hosts / f"h{number}" / "pid" / "namespace.json"
    try:
        pid = int(json.loads(record.read_text())["pid"])
        os.kill(pid, 0)
    except (OSError, ValueError):
        print(f"connect to host {address}: no route", file=sys.stderr)
        raise SystemExit(SSH_FAILED) from None
    return pid


def without_options(words: Sequence[str]) -> list[str]:
    """The words without the options that they begin with."""
    rest = list(words)
    while rest and rest[0].startswith("-"):
        del rest[: 2 if rest[0] in WITH_VALUE else 1]
    return rest


def ssh(hosts: pathlib.Path, words: Sequence[str]) -> list[str]:
    """The command that runs the words in the other host's shell."""
    address, *remote = without_options(words)
    pid = str(first_pid(hosts, address))
    enter = ["nsenter", "-t", pid, "-m", "-u", "--"]
    return [*enter, "sh", "-c", " ".join(remote)]


def scp(hosts: pathlib.Path, words: Sequence[str]) -> list[str]:
    """The command that copies between this host and others."""

    def local(path: str) -> str:
        address, colon, there = path.rpartition(":")
        if not colon:
            return path
        return f"/proc/{first_pid(hosts, address)}/root{there}"

    *sources, target = map(local, without_options(words))
    return ["cp", "-r", "--sparse=always", "--", *sources, target]


if __name__ == "__main__":
    called = pathlib.Path(sys.argv[0])
    build = {"ssh": ssh, "scp": scp}[called.name]
    command = build(called.parents[2], sys.argv[1:])
    os.execvp(command[0], command)
