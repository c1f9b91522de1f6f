# SPDX-License-Identifier: Apache-2.0

"""What Nova's services run on: eventlet or native threads."""

import os

from tests.testbed import versions
from tests.testbed.process import TestbedError

EVENTLET, NATIVE = "eventlet", "native"
# The first release whose nova-compute can run on native threads, and the
# first that does so by default.
NATIVE_SINCE = 33
NATIVE_BY_DEFAULT_SINCE = 34
# What is asked for; empty: what the release chooses.
CHOICE = os.environ.get("NOVA_THREADS", "")


def kinds(major: int, native_since: int = NATIVE_SINCE) -> tuple[str, ...]:
    """What a release of Nova can run on, its default first."""
    if major < native_since:
        return (EVENTLET,)
    if major < NATIVE_BY_DEFAULT_SINCE:
        return EVENTLET, NATIVE
    return NATIVE, EVENTLET


def kind() -> str:
    """What Nova's services run on here.

    :raises TestbedError: this Nova does not run on what is asked for
    """
    possible = kinds(versions.nova_major())
    if CHOICE not in ("", *possible):
        raise TestbedError(
            f"NOVA_THREADS is {CHOICE!r}, but nova-compute of Nova "
            f"{versions.NOVA} runs on {' or '.join(possible)} threads"
        )
    return CHOICE or possible[0]


def environment() -> dict[str, str]:
    """The variable that tells Nova's services what to run on.

    Empty if nothing is asked for: then Nova itself chooses.
    """
    native = kind() == NATIVE
    name = "OS_NOVA_DISABLE_EVENTLET_PATCHING"
    return {name: str(native).lower()} if CHOICE else {}
