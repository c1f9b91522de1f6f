# SPDX-License-Identifier: Apache-2.0

"""Values that a table shows to people, and other formats give to programs.

An unknown or absent value is ``-`` in a table, and null for a program.
"""

import textwrap
from typing import Any

from cliff import columns

from nova_rbd_backend import names

_PROSE_WIDTH = 72
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


# FormattableColumn is generic only in later releases of cliff than 4.0.
class Text(columns.FormattableColumn):  # type: ignore[type-arg]
    """A word."""

    _value: Any

    def human_readable(self) -> str:
        return "-" if self._value is None else self._shown()

    def _shown(self) -> str:
        return str(self._value)


class Size(Text):
    """A number of bytes, in a table rounded as the ``rbd`` program does."""

    def _shown(self) -> str:
        value, unit = float(self._value), 0
        while value >= 1024 and unit < len(_UNITS) - 1:
            value, unit = value / 1024, unit + 1
        text = f"{value:.1f}" if value < 100 and value % 1 else f"{value:.0f}"
        return f"{text} {_UNITS[unit]}"


class Prose(Text):
    """A sentence, in lines that fit into a table."""

    def human_readable(self) -> str:
        return textwrap.fill(self._value or "-", _PROSE_WIDTH)


class Flag(Text):
    """True or False; yes or no in a table."""

    def human_readable(self) -> str:
        return "yes" if self._value else "no"


class Lines(Text):
    """A list, in a table one item a line."""

    def _shown(self) -> str:
        return "\n".join(self.machine_readable()) or "-"

    def machine_readable(self) -> list[str]:
        return list(map(str, self._value))


class Pairs(Text):
    """Names with values, in a table one pair a line."""

    def _shown(self) -> str:
        return "\n".join(f"{k}={v}" for k, v in self._value.items()) or "-"


class Time(Text):
    """A datetime in UTC; ISO 8601 for programs."""

    def _shown(self) -> str:
        return f"{self._value:%Y-%m-%d %H:%M:%S}"

    def machine_readable(self) -> str | None:
        return self._value and f"{self._value:%Y-%m-%dT%H:%M:%SZ}"


class Parent(Text):
    """The path of a parent; in a table a base is named after its source."""

    def _shown(self) -> str:
        source = names.base_source(self._value.image)
        return str(self._value) if source is None else f"base of {source}"

    def machine_readable(self) -> str | None:
        return self._value and str(self._value)


def instance_of(image: str) -> str | None:
    """Return the instance whose disk an RBD image is, or a draft of it."""
    disk = names.DiskName.parse(names.final_name(image))
    return disk.instance_uuid if disk else None
