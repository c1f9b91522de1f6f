# SPDX-License-Identifier: Apache-2.0

"""nova-rbd-check: would nova-compute start here, and would its guests?

Reads nova-compute's configuration and tries, on the real cluster and libvirt,
what nova-compute tries when it starts. Also checks that nova-compute is told
to load this backend at all. Needs no Nova, and changes nothing.
"""

import argparse
import functools
from collections.abc import Iterator
from typing import NoReturn

from nova_rbd_backend import errors
from nova_rbd_backend.checks import run
from nova_rbd_backend.checks.steps import Outcome, Result
from nova_rbd_backend.cmd import config, leaving
from nova_rbd_backend.domains import connection

# Ceph's and libvirt's modules are not imported here, nor is cliff: see
# checks.run.


def main(argv: list[str] | None = None) -> int:
    """Print a line for each check; return 1 if one failed, otherwise 0."""
    parser = argparse.ArgumentParser(
        prog="nova-rbd-check", description=__doc__.partition("\n\n")[0]
    )
    config.add_arguments(parser)
    add_arguments(parser)
    arguments = parser.parse_args(argv)
    failed = False
    for row in outcomes(arguments, arguments.glance_user):
        word: str = row.result
        if row.result is Result.FAILED:
            failed, word = True, word.upper()
        remark = f": {row.remark}" if row.remark else ""
        print(f"{word}  {row.name}{remark}", flush=True)
    return int(failed)


def program() -> NoReturn:
    """Run ``nova-rbd-check``."""
    leaving.leave(main())


def outcomes(
    arguments: argparse.Namespace, glance_user: str | None
) -> Iterator[Outcome]:
    """Run all checks; yield each outcome as soon as it is known.

    :param arguments: those of config.add_arguments
    """
    try:
        conf = config.parse(arguments)
    except errors.ConfigError as error:
        yield Outcome("options", Result.FAILED, str(error))
        return
    libvirt = functools.partial(
        connection.connected,
        conf.libvirt.connection_uri,
        "the user of nova-compute",
    )
    yield from run.outcomes(conf, libvirt, glance_user)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what can be checked beside this host's own configuration."""
    parser.add_argument(
        "--glance-user",
        metavar="USER",
        help="also check that this Ceph user, Glance's (without 'client.'), "
        "can read and delete snapshots of instances; its keyring has to be "
        "readable on this host",
    )


if __name__ == "__main__":
    program()
