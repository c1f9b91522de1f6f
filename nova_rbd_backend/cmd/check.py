# SPDX-License-Identifier: Apache-2.0

"""nova-rbd-check: would nova-compute start here, and its guests too?

Reads nova-compute's configuration and tries on the real cluster and libvirt
what nova-compute tries at its start, and in addition whether nova-compute was
told to load this backend at all. Needs no Nova, changes nothing.
"""

import argparse
import dataclasses
import enum
import functools
import importlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import NoReturn

from oslo_config import cfg

from nova_rbd_backend import conf as options
from nova_rbd_backend import errors
from nova_rbd_backend.cmd import config, leaving, libvirt_connection

# Ceph's and libvirt's modules are not imported above: a host without them has
# to be told so, in a row of its own. Nor is cliff.

#: Returns what is doubtful, and raises errors.Error for what is wrong.
Look = Callable[[], str | None]

_PACKAGES = {
    "rados": "python3-rados",
    "rbd": "python3-rbd",
    "libvirt": "python3-libvirt",
}
_QEMU_SECONDS = 30


class Result(enum.StrEnum):
    """NOT_TRIED: it cannot pass, since another one failed."""

    PASSED = "passed"
    WARNED = "warned"
    FAILED = "failed"
    NOT_TRIED = "not tried"


@dataclasses.dataclass(frozen=True)
class Row:
    """:ivar remark: what is wrong or doubtful, and how to mend it"""

    name: str
    result: Result
    remark: str | None = None


@dataclasses.dataclass(frozen=True)
class Step:
    """:ivar needs: steps that have to have passed"""

    name: str
    look: Look
    needs: tuple[str, ...] = ()


def main(argv: list[str] | None = None) -> int:
    """Print a row for each check; return 1 if one failed, otherwise 0."""
    arguments = _arguments(argv)
    failed = False
    for row in results(arguments, arguments.glance_user):
        failed = failed or row.result is Result.FAILED
        word = (
            row.result.upper() if row.result is Result.FAILED else row.result
        )
        remark = f": {row.remark}" if row.remark else ""
        print(f"{word}  {row.name}{remark}", flush=True)
    return int(failed)


def program() -> NoReturn:
    """Run ``nova-rbd-check``."""
    leaving.leave(main())


def results(
    arguments: argparse.Namespace, glance_user: str | None
) -> Iterator[Row]:
    """Look at everything, one after the other; each as soon as it is known.

    :param arguments: config.add_arguments'
    """
    try:
        conf = config.parse(arguments)
        settings = options.apply(conf)
    except (errors.Error, cfg.Error) as error:
        yield Row("options", Result.FAILED, str(error))
        return
    yield Row("options", Result.PASSED, settings.summary())
    failed: set[str] = set()
    for step in _steps(conf, settings, glance_user):
        row = _row(step, failed)
        if row.result in (Result.FAILED, Result.NOT_TRIED):
            failed.add(step.name)
        yield row


def _row(step: Step, failed: set[str]) -> Row:
    if missing := [name for name in step.needs if name in failed]:
        return Row(step.name, Result.NOT_TRIED, f"needs: {missing[0]}")
    try:
        doubt = step.look()
    except errors.Error as error:
        return Row(step.name, Result.FAILED, str(error))
    return Row(step.name, Result.WARNED if doubt else Result.PASSED, doubt)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="nova-rbd-check", description=__doc__.partition("\n\n")[0]
    )
    config.add_arguments(parser)
    add_arguments(parser)
    return parser.parse_args(argv)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what can be checked beside this host's own configuration."""
    parser.add_argument(
        "--glance-user",
        metavar="USER",
        help="also try whether Glance's Ceph user (without 'client.') can "
        "read and delete snapshots of instances; where its keyring can be "
        "read",
    )


def _steps(
    conf: cfg.ConfigOpts,
    settings: options.Settings,
    glance_user: str | None,
) -> Iterator[Step]:
    def driver() -> None:
        options.check_driver(conf)

    yield Step("compute_driver", driver)
    if not settings.uses_rbd:
        return
    modules = tuple(f"Python module {module}" for module in _PACKAGES)
    for name, module in zip(modules, _PACKAGES, strict=True):
        yield Step(name, functools.partial(_require, module))
    ceph, libvirt = modules[:2], modules[2]
    if not any(map(_is_missing, ("rados", "rbd"))):
        yield from _ceph_steps(settings, glance_user)
    yield Step(
        "libvirt secret",
        lambda: _check_secret(conf, settings),
        (*ceph, libvirt),
    )
    yield Step("QEMU's rbd driver", _check_qemu)


def _ceph_steps(
    settings: options.Settings, glance_user: str | None
) -> Iterator[Step]:
    health = importlib.import_module("nova_rbd_backend.storage.health")
    doubts = importlib.import_module("nova_rbd_backend.storage.doubts")
    cluster = importlib.import_module("nova_rbd_backend.storage.cluster")
    ceph = cluster.connect(health.cluster_settings(settings))
    steps = list(health.steps(settings))
    for step in steps:
        look = functools.partial(step.look, ceph)
        yield Step(step.name, look, step.needs)
    needs = (steps[0].name, steps[1].name)
    if glance_user:
        yield Step(
            "Glance's rights for snapshots",
            lambda: _check_glance(settings, glance_user),
            needs,
        )
    yield Step("cluster's health", lambda: doubts.of_cluster(ceph), needs[:1])
    spaces = [
        (each.pool, each.image_options.data_pool) for each in settings.classes
    ]
    for pool, data_pool in dict.fromkeys(spaces):
        yield Step(
            f"space in {data_pool or pool}",
            functools.partial(doubts.of_space, ceph, pool, data_pool),
            (needs[0], f"pool {pool}"),
        )
    for pool in dict.fromkeys(pool for pool, _ in spaces):
        yield Step(
            f"deletions in {pool}",
            functools.partial(doubts.of_deletions, ceph.pool(pool)),
            (needs[0], f"pool {pool}"),
        )


def _is_missing(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        return True
    return False


def _require(module: str) -> None:
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise errors.ConfigError(
            f"{error}: install {_PACKAGES[module]} for {sys.executable}"
        ) from error


def _check_qemu() -> str | None:
    """Let qemu-img load its rbd driver; the QEMU beside it has the same.

    Its list of formats has what is not installed too (7.2).
    """
    program = shutil.which("qemu-img")
    if program is None:
        return "there is no qemu-img, so QEMU's drivers are not known"
    done = subprocess.run(  # noqa: S603
        [program, "info", "--image-opts", "driver=rbd"],
        capture_output=True,
        text=True,
        timeout=_QEMU_SECONDS,
        check=False,
    )
    # One that is there asks for a pool.
    if "Unknown driver" not in done.stderr:
        return None
    raise errors.ConfigError(
        "QEMU cannot open RBD images, so no guest would start: install its "
        "rbd driver (Debian, Ubuntu: qemu-block-extra; Fedora, RHEL: "
        "qemu-kvm-block-rbd)"
    )


def _check_glance(settings: options.Settings, user: str) -> None:
    rights = importlib.import_module("nova_rbd_backend.storage.glance_rights")
    rights.check(settings, user)


def _check_secret(conf: cfg.ConfigOpts, settings: options.Settings) -> None:
    secret = importlib.import_module("nova_rbd_backend.virt.secret")
    user = "the user of nova-compute"
    with libvirt_connection.connected(conf, user) as connection:
        secret.check(connection, settings)


if __name__ == "__main__":
    program()
