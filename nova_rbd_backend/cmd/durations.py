# SPDX-License-Identifier: Apache-2.0

"""Lengths of time as an operator writes them: 90s, 30m, 12h, 14d."""

import argparse
import re

DAY_SECONDS = 24 * 3600
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": DAY_SECONDS}


def seconds(text: str) -> int:
    """Read a length of time, for argparse.

    :raises argparse.ArgumentTypeError: the text is not a length of time
    """
    found = re.fullmatch(r"(\d+)([smhd])", text)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a length of time, such as 12h or 14d"
        )
    return int(found[1]) * _UNITS[found[2]]
