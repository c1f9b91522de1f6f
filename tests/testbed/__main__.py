# SPDX-License-Identifier: Apache-2.0

"""python -m tests.testbed install|up|down|status|run: see --help."""

import argparse
import os
import pathlib
import subprocess
import sys

from tests.testbed import install, paths, versions
from tests.testbed.process import TestbedError
from tests.testbed.steps import Steps


def main(arguments: list[str]) -> int:
    """Run one command; return the exit code."""
    wanted = _parser().parse_args(arguments)
    try:
        if wanted.command == "venv":
            print(install.venv())
            return 0
        if wanted.command == "packages":
            install.install_packages_alone()
            return 0
        install.install()
        if wanted.command == "install":
            return 0
        _enter_venv()
        return int(_COMMANDS[wanted.command](wanted))
    except TestbedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.testbed",
        description="A throwaway Ceph, compute hosts and an OpenStack on this "
        f"machine. State: {paths.STATE}/NAME; everything listens on loopback. "
        f"NOVA_VERSION ({versions.NOVA}), NOVA_THREADS (eventlet, native) "
        "in the environment choose Nova.",
    )
    parser.add_argument(
        "--name", default="default", help="name of the testbed (%(default)s)"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("install", help="only install what is missing")
    commands.add_parser("packages", help="only install Debian's packages")
    up = commands.add_parser("up", help="start what is not running")
    up.add_argument("--hosts", type=int, default=1, help="compute hosts")
    up.add_argument(
        "--backend",
        default="plugin",
        choices=("plugin", "in-tree"),
        help="image backend",
    )
    up.add_argument(
        "--ceph-only",
        action="store_true",
        help="start neither OpenStack nor compute hosts",
    )
    commands.add_parser("down", help="end all processes, remove all files")
    commands.add_parser("status", help="list processes")
    commands.add_parser("guest", help="only build the disk of the guests")
    commands.add_parser("venv", help="print the path of the venv")
    run = commands.add_parser(
        "run",
        help="run a command with OS_* and CEPH_CONF set",
        epilog="example: run openstack server list; run rbd ls vms",
    )
    run.add_argument("words", nargs=argparse.REMAINDER, metavar="CMD...")
    return parser


def _enter_venv() -> None:
    """Go on in the venv's interpreter, which has openstacksdk and rados."""
    folder = install.venv()
    if pathlib.Path(sys.prefix) != folder:
        python = str(folder / "bin/python")
        os.chdir(paths.CHECKOUT)
        os.execv(python, [python, "-m", "tests.testbed", *sys.argv[1:]])


def _guest(wanted: argparse.Namespace) -> int:
    from tests.testbed.guest import building

    print(building.build().raw)
    return 0


def _up(wanted: argparse.Namespace) -> int:
    from tests.testbed.whole import Testbed

    steps = Steps()
    testbed = Testbed(wanted.name, wanted.hosts, wanted.backend)
    testbed.up(steps, ceph_only=wanted.ceph_only)
    print(f"up after {steps.seconds():.1f} s; logs in {testbed.folder}")
    return 0


def _down(wanted: argparse.Namespace) -> int:
    from tests.testbed.whole import Testbed

    with Steps().step(f"end testbed {wanted.name!r}"):
        Testbed(wanted.name).down()
    return 0


def _status(wanted: argparse.Namespace) -> int:
    from tests.testbed.whole import Testbed

    for name, pid in Testbed.load(wanted.name).status():
        print(f"{name:24} {pid}")
    return 0


def _run(wanted: argparse.Namespace) -> int:
    from tests.testbed.whole import Testbed

    testbed = Testbed.load(wanted.name)
    env = {**os.environ, **testbed.client_environment()}
    return subprocess.run(wanted.words, env=env).returncode


_COMMANDS = {
    "guest": _guest,
    "up": _up,
    "down": _down,
    "status": _status,
    "run": _run,
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
