# SPDX-License-Identifier: Apache-2.0

"""A table of reStructuredText that is printed while it grows."""

from collections.abc import Sequence

#: The head of each column, and its width.
Columns = Sequence[tuple[str, int]]


def line(columns: Columns, cells: Sequence[object]) -> str:
    """Return a row."""
    pairs = zip(cells, columns, strict=True)
    return "  ".join(str(c).ljust(width) for c, (_, width) in pairs).rstrip()


def border(columns: Columns) -> str:
    """Return the line above, below and under the head of a table."""
    return line(columns, ["=" * width for _, width in columns])


def head(columns: Columns) -> str:
    """Return the lines that the rows follow."""
    names = line(columns, [name for name, _ in columns])
    return "\n".join((border(columns), names, border(columns)))
