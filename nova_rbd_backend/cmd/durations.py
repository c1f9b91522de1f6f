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

"""Lengths of time as an operator writes them: 90s, 30m, 12h, 14d."""

import argparse
import re

DAY_SECONDS = 24 * 3600
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": DAY_SECONDS}


def seconds(text: str) -> int:
    """Read one, for argparse.

    :raises argparse.ArgumentTypeError: it is none
    """
    found = re.fullmatch(r"(\d+)([smhd])", text)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no length of time, like 12h or 14d"
        )
    return int(found[1]) * _UNITS[found[2]]
