# SPDX-License-Identifier: Apache-2.0

"""The one list of checks: would nova-compute start here, and its guests too?

nova-compute runs a part of the list when it starts; ``nova-rbd check`` runs
the whole of it, and needs no Nova for that.
"""

import contextlib
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

# Modules that need Ceph's or libvirt's are imported where they are needed: a
# host that lacks one has to be told so, in a line of its own.


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
    :param glance_user: None: what Glance's user may do is not tried
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
    modules = {module: host.module_step(module) for module in host.MODULES}
    yield from modules.values()
    needs = tuple(step.name for step in modules.values())
    if all(map(host.can_import, host.CEPH_MODULES)):
        yield from _ceph_steps(settings, glance_user)
    yield _secret_step(settings, libvirt, needs)
    yield host.QEMU


def _ceph_steps(settings: Settings, glance_user: str | None) -> Iterator[Step]:
    from nova_rbd_backend.checks import ceph, glance, warnings

    yield from ceph.steps(settings)
    if glance_user:
        needs = (ceph.LOGIN, ceph.pool_step_name(settings.pool))
        yield from glance.steps(settings, glance_user, needs)
    yield from warnings.steps(settings)


def _secret_step(
    settings: Settings, libvirt: Libvirt, needs: tuple[str, ...] = ()
) -> Step:
    def probe() -> str | None:
        from nova_rbd_backend.checks import secret

        with libvirt() as connection:
            return secret.check(connection, settings)

    return Step("libvirt secret", probe, needs)
