# SPDX-License-Identifier: Apache-2.0

"""What nova-compute is configured with on this host, without a Nova."""

import argparse

from oslo_config import cfg

from nova_rbd_backend import conf as conf_


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--config-file`` and ``--config-dir``."""
    parser.add_argument(
        "--config-file",
        action="append",
        metavar="FILE",
        help="as for nova-compute; by default the files it reads by itself",
    )
    parser.add_argument(
        "--config-dir",
        action="append",
        metavar="FOLDER",
        help="as for nova-compute",
    )


def parse(arguments: argparse.Namespace) -> cfg.ConfigOpts:
    """Read the files that nova-compute reads, or those that are named.

    :raises oslo_config.cfg.Error: they cannot be read
    """
    conf = cfg.ConfigOpts()
    conf_.register_nova_options(conf)
    # nova-compute's search, by its names (nova/config.py: parse_args)
    conf(
        [],
        project="nova",
        prog="nova-compute",
        default_config_files=arguments.config_file,
        default_config_dirs=arguments.config_dir,
    )
    return conf
