# SPDX-License-Identifier: Apache-2.0

"""Where the testbed keeps things; nothing outside these folders is written."""

import os
import pathlib

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]

# Short: Unix socket paths are limited to 107 bytes.
STATE = pathlib.Path("/tmp/nova-rbd-testbed")


def cache() -> pathlib.Path:
    """What is kept between runs: virtual environments, the guest image."""
    chosen = os.environ.get("NOVA_RBD_TESTBED_CACHE")
    return pathlib.Path(chosen) if chosen else CHECKOUT / ".testbed"


def state(name: str) -> pathlib.Path:
    """The folder of one testbed: all its daemons' data, logs and sockets."""
    return STATE / name
