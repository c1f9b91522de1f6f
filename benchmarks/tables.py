# SPDX-License-Identifier: Apache-2.0

"""Tables of what was measured, for a terminal and for the documentation."""

from benchmarks.results import Report


def text(report: Report) -> str:
    """The table in columns."""
    lines = [report.heading()]
    for row in report.rows:
        lines.append([row.case, row.side, *report.cells(row)])
    return "\n".join([report.title, *columns(lines)])


def columns(lines: list[list[str]]) -> list[str]:
    """Join the cells of each line, aligned in columns."""
    widths = [
        # A line without figures has one long cell, which says why.
        max(len(line[i]) for line in lines if len(line) > max(3, i) or i < 2)
        for i in range(len(lines[0]))
    ]
    return [
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=False))
        ).rstrip()
        for line in lines
    ]


def rst(report: Report) -> str:
    """The table as a list-table, and the conditions of the measurement."""
    rows = [report.heading()]
    rows += [[r.case, r.side, *report.cells(r)] for r in report.rows]
    title = f"{report.title}: medians [least-most]"
    return list_table(title, rows) + f"\n{_conditions(report)}\n"


def list_table(title: str, rows: list[list[str]]) -> str:
    """A table of reStructuredText, its first row the headings."""
    lines = [f".. list-table:: {title}", "   :header-rows: 1", ""]
    for cells in rows:
        padded = [*cells, *[""] * (len(rows[0]) - len(cells))]
        lines += [
            f"   {'* -' if i == 0 else '  -'} {cell}".rstrip()
            for i, cell in enumerate(padded)
        ]
    return "\n".join([*lines, ""])


def _conditions(report: Report) -> str:
    found = report.conditions
    return (
        f"Measured {found['begun']} within {found['seconds']:.0f} s; the "
        f"machine's load was {found['load_before']:.1f} before it began. "
        f"Nova {found['nova']}, Ceph {found['ceph']}, {found['cores']} cores; "
        f"commit {found.get('commit', 'unknown')}."
    )
