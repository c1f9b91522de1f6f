# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""nova-rbd-check: would nova-compute start here, and its guests too?

Reads nova-compute's configuration and tries on the real cluster and libvirt
what nova-compute tries at its start, and in addition whether nova-compute was
told to load this backend at all. Needs no Nova, changes nothing.
"""

import argparse
import functools
import importlib
import sys
import typing
from collections.abc import Callable, Iterator

from oslo_config import cfg

from nova_rbd_backend import conf as options
from nova_rbd_backend import errors

# Ceph's and libvirt's modules are not imported above: a host without them has
# to be told so, in a row of its own.

Step = tuple[str, Callable[[], None]]

_PACKAGES = {
    "rados": "python3-rados",
    "rbd": "python3-rbd",
    "libvirt": "python3-libvirt",
}


def main(argv: list[str] | None = None) -> int:
    """Print a row for each check; return 0 if all passed, otherwise 1."""
    try:
        conf = _parse(argv)
        settings = options.apply(conf)
    except (errors.Error, cfg.Error) as error:
        _row("options", error)
        return 1
    _row(f"options: {settings.summary()}")
    for name, step in _steps(conf, settings):
        try:
            step()
        except errors.Error as error:
            _row(name, error)
            return 1  # what follows would fail for the same reason
        _row(name)
    return 0


def _parse(argv: list[str] | None) -> cfg.ConfigOpts:
    parser = argparse.ArgumentParser(
        prog="nova-rbd-check", description=__doc__.partition("\n\n")[0]
    )
    parser.add_argument(
        "--config-file",
        action="append",
        metavar="FILE",
        help="as for nova-compute; by default the files it reads by itself",
    )
    parser.add_argument("--config-dir", action="append", metavar="FOLDER")
    arguments = parser.parse_args(argv)
    conf = cfg.ConfigOpts()
    options.register_nova_options(conf)
    # nova-compute's search, by its names (nova/config.py: parse_args)
    conf(
        [],
        project="nova",
        prog="nova-compute",
        default_config_files=arguments.config_file,
        default_config_dirs=arguments.config_dir,
    )
    return conf


def _steps(conf: cfg.ConfigOpts, settings: options.Settings) -> Iterator[Step]:
    yield "compute_driver", functools.partial(options.check_driver, conf)
    if not settings.uses_rbd:
        return
    for module in _PACKAGES:
        yield f"Python module {module}", functools.partial(_require, module)
    yield "Ceph cluster, pools and rights", lambda: _check_ceph(settings)
    yield "libvirt secret", lambda: _check_secret(conf, settings)


def _require(module: str) -> None:
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise errors.ConfigError(
            f"{error}: install {_PACKAGES[module]} for {sys.executable}"
        ) from error


def _check_ceph(settings: options.Settings) -> None:
    importlib.import_module("nova_rbd_backend.storage.health").check(settings)


def _check_secret(conf: cfg.ConfigOpts, settings: options.Settings) -> None:
    libvirt = importlib.import_module("libvirt")
    # Its default handler prints every error a second time.
    libvirt.registerErrorHandler(lambda *_: None, None)
    uri = conf.libvirt.connection_uri or "qemu:///system"
    try:
        connection = libvirt.open(uri)
    except libvirt.libvirtError as error:
        raise errors.ConfigError(
            f"no connection to libvirt at {uri}: {error}: start libvirtd, and "
            "run this as the user of nova-compute"
        ) from error
    try:
        secret = importlib.import_module("nova_rbd_backend.virt.secret")
        secret.check(connection, settings)
    finally:
        connection.close()


def _row(name: str, error: typing.Any = None) -> None:
    if error is None:
        print(f"passed  {name}")
    else:
        print(f"FAILED  {name}: {error}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
