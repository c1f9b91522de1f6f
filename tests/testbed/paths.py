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
