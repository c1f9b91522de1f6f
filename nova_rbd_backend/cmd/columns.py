# SPDX-License-Identifier: Apache-2.0

"""Values that a table shows to people, and other formats give to programs.

Unknown or absent is ``-`` in a table, and null for a program.
"""

import datetime
import textwrap
from collections.abc import Mapping
from typing import Any

from cliff import columns

from nova_rbd_backend import names

_PROSE_WIDTH = 72
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


class _Column(columns.FormattableColumn):  # type: ignore[type-arg]
    """Generic only in later releases of cliff than those that will do."""

    _value: Any


class Size(_Column):
    """Bytes: a number for programs."""

    def human_readable(self) -> str:
        return "-" if self._value is None else human_size(self._value)


def human_size(size_bytes: int) -> str:
    """The size with three digits, as the ``rbd`` program has it."""
    value, unit = float(size_bytes), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    text = f"{value:.1f}" if value < 100 and value % 1 else f"{value:.0f}"
    return f"{text} {_UNITS[unit]}"


class Text(_Column):
    """A word, if there is one."""

    def human_readable(self) -> str:
        return "-" if self._value is None else str(self._value)


class Prose(_Column):
    """A sentence, in lines that a table has room for."""

    def human_readable(self) -> str:
        return textwrap.fill(self._value or "-", _PROSE_WIDTH)


class Flag(_Column):
    """Yes or no."""

    def human_readable(self) -> str:
        return "yes" if self._value else "no"


class Lines(_Column):
    """A list: one below the other in a table."""

    def human_readable(self) -> str:
        return "\n".join(map(str, self._value)) or "-"

    def machine_readable(self) -> list[str]:
        return list(map(str, self._value))


class Pairs(_Column):
    """Names with values: one below the other in a table."""

    def human_readable(self) -> str:
        facts: Mapping[str, object] = self._value
        return "\n".join(f"{k}={v}" for k, v in facts.items()) or "-"


class Time(_Column):
    """A moment, in UTC; ISO 8601 for programs."""

    def human_readable(self) -> str:
        when: datetime.datetime | None = self._value
        return "-" if when is None else f"{when:%Y-%m-%d %H:%M:%S}"

    def machine_readable(self) -> str | None:
        when: datetime.datetime | None = self._value
        return None if when is None else f"{when:%Y-%m-%dT%H:%M:%SZ}"


class Parent(_Column):
    """A parent image; a base by what it was made of, which is shorter."""

    def human_readable(self) -> str:
        path: names.ImagePath | None = self._value
        if path is None:
            return "-"
        source = names.base_source(path.image)
        return str(path) if source is None else f"base of {source}"

    def machine_readable(self) -> str | None:
        return None if self._value is None else str(self._value)


def seconds_to_time(seconds: float | None) -> datetime.datetime | None:
    """A moment from seconds since 1970."""
    if seconds is None:
        return None
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)
