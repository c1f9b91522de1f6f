# SPDX-License-Identifier: Apache-2.0

"""The one list of checks: would nova-compute start here, and its guests too?

nova-compute runs some of these checks when it starts. ``nova-rbd check`` runs
all of them, and does not need Nova for that.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

from oslo_config import cfg

from nova_rbd_backend import conf as options
from nova_rbd_backend import errors
from nova_rbd_backend.checks import host, steps
from nova_rbd_backend.checks.steps import Outcome, Result, Step
from nova_rbd_backend.settings import Settings

#: Lends a virConnect that may read secrets.
Libvirt = Callable[[], contextlib.AbstractContextManager[Any]]

# Modules of ours that need Ceph's or libvirt's modules are imported late, so
# that a check can say which module the host does not have.


def start_steps(settings: Settings, libvirt: Libvirt) -> Iterator[Step]:
    """Yield the checks without which nova-compute does not start."""
    from nova_rbd_backend.checks import ceph

    yield from ceph.steps(settings)
    yield _secret_step(settings, libvirt)


def outcomes(
    conf: cfg.ConfigOpts, libvirt: Libvirt, glance_user: str | None
) -> Iterator[Outcome]:
    """Run all checks; yield each outcome as soon as it is known.

    :param conf: nova-compute's, with Nova's options registered
    :param glance_user: None: do not check the rights of Glance's user
    """
    try:
        settings = options.apply(conf)
    except (errors.Error, cfg.Error) as error:
        yield Outcome("options", Result.FAILED, str(error))
        return
    yield Outcome("options", Result.PASSED, settings.summary())
    yield from steps.run(_steps(conf, settings, libvirt, glance_user))


def _steps(
    conf: cfg.ConfigOpts,
    settings: Settings,
    libvirt: Libvirt,
    glance_user: str | None,
) -> Iterator[Step]:
    yield Step("compute_driver", lambda: options.check_driver(conf))
    if not settings.uses_rbd:
        return
    modules = {name: f"Python module {name}" for name in host.MODULES}
    for name, step_name in modules.items():
        yield Step(step_name, functools.partial(host.require_module, name))
    try:
        host.require_ceph_modules()
    except errors.ConfigError:
        pass  # The steps above report it.
    else:
        yield from _ceph_steps(settings, glance_user)
    yield _secret_step(settings, libvirt, tuple(modules.values()))
    yield host.QEMU


def _ceph_steps(settings: Settings, glance_user: str | None) -> Iterator[Step]:
    from nova_rbd_backend.checks import ceph, glance, warnings

    yield from ceph.steps(settings)
    if glance_user:
        yield Step(
            "Glance's rights for snapshots",
            lambda: glance.check(settings, glance_user),
            (ceph.LOGIN, ceph.pool_step_name(settings.pool)),
        )
    yield from warnings.steps(settings)


def _secret_step(
    settings: Settings, libvirt: Libvirt, needs: tuple[str, ...] = ()
) -> Step:
    def probe() -> str | None:
        from nova_rbd_backend.checks import secret

        with libvirt() as connection:
            return secret.check(connection, settings)

    return Step("libvirt secret", probe, needs)
