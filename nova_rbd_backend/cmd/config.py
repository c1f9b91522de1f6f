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

"""What nova-compute is configured with on this host, without a Nova."""

import argparse

from oslo_config import cfg

from nova_rbd_backend import conf as options


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
