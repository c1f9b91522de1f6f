# SPDX-License-Identifier: Apache-2.0

"""nova-compute's configuration on this host, read without a Nova."""

import argparse

from oslo_config import cfg

from nova_rbd_backend import conf as conf_
from nova_rbd_backend import errors


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--config-file`` and ``--config-dir``."""
    for option, metavar, remark in (
        ("--config-file", "FILE", "; by default the files that it reads"),
        ("--config-dir", "FOLDER", ""),
    ):
        parser.add_argument(
            option,
            action="append",
            metavar=metavar,
            help=f"as for nova-compute{remark}",
        )


def parse(arguments: argparse.Namespace) -> cfg.ConfigOpts:
    """Read the files that are named, or else those that nova-compute reads.

    :raises errors.ConfigError: they cannot be read
    """
    conf = cfg.ConfigOpts()
    conf_.register_nova_options(conf)
    # oslo.config finds nova-compute's files by these two names
    # (nova/config.py: parse_args).
    try:
        conf(
            [],
            project="nova",
            prog="nova-compute",
            default_config_files=arguments.config_file,
            default_config_dirs=arguments.config_dir,
        )
    except cfg.Error as error:
        raise errors.ConfigError(str(error)) from error
    return conf
