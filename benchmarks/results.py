# SPDX-License-Identifier: Apache-2.0

"""What was measured: rows of samples, and their medians and spread."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Sample = Mapping[str, float]
FLOOR = "floor"
SIDES = ("plugin", "in-tree", FLOOR)


@dataclasses.dataclass(frozen=True)
class Column:
    """One figure of each sample.

    :ivar spread: also show the least and the most
    :ivar ratio: also show the ratio to the floor's figure
    """

    key: str
    title: str
    digits: int = 1
    spread: bool = False
    ratio: bool = False


@dataclasses.dataclass
class Row:
    """One side's samples of one case.

    :ivar not_run: why there are none
    """

    case: str
    side: str
    samples: list[Sample] = dataclasses.field(default_factory=list)
    not_run: str = ""

    def median(self, key: str) -> float | None:
        values = [s[key] for s in self.samples if key in s]
        return statistics.median(values) if values else None

    def ends(self, key: str) -> tuple[float, float] | None:
        values = [s[key] for s in self.samples if key in s]
        return (min(values), max(values)) if values else None


@dataclasses.dataclass
class Report:
    """One benchmark's figures."""

    name: str
    title: str
    about: str
    columns: Sequence[Column]
    rows: list[Row] = dataclasses.field(default_factory=list)
    conditions: dict[str, Any] = dataclasses.field(default_factory=dict)

    def row(self, case: str, side: str) -> Row:
        """Return the row; begin it if there is none."""
        for row in self.rows:
            if (row.case, row.side) == (case, side):
                return row
        self.rows.append(Row(case, side))
        return self.rows[-1]

    def add(self, case: str, side: str, sample: Sample) -> None:
        self.row(case, side).samples.append(sample)

    def not_run(self, case: str, side: str, why: str) -> None:
        self.row(case, side).not_run = why

    def arrange(self) -> None:
        """Put the sides in the same order in all cases."""
        cases = self.cases()
        self.rows.sort(key=lambda r: (cases.index(r.case), _rank(r.side)))

    def cases(self) -> list[str]:
        return list(dict.fromkeys(row.case for row in self.rows))

    def sides(self) -> list[str]:
        return list(dict.fromkeys(row.side for row in self.rows))

    def find(self, case: str, side: str) -> Row | None:
        for row in self.rows:
            if (row.case, row.side) == (case, side):
                return row
        return None

    def cells(self, row: Row) -> list[str]:
        """The row's cells after case and side, in the order of heading()."""
        if row.not_run:
            return [f"not run: {row.not_run}"]
        found = [str(len(row.samples))]
        for column in self.columns:
            found.append(_figure(row, column))
            if column.ratio:
                found.append(self._ratio(row, column))
        return found

    def heading(self) -> list[str]:
        found = ["case", "side", "n"]
        for column in self.columns:
            found.append(column.title)
            if column.ratio:
                found.append("x floor")
        return found

    def _ratio(self, row: Row, column: Column) -> str:
        floor = self.find(row.case, FLOOR)
        bottom = floor.median(column.key) if floor else None
        top = row.median(column.key)
        return f"{top / bottom:.2f}" if top is not None and bottom else "-"

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {
            "medians": [
                {
                    "case": row.case,
                    "side": row.side,
                    **{c.key: row.median(c.key) for c in self.columns},
                }
                for row in self.rows
                if row.samples
            ]
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Report":
        return cls(
            found["name"],
            found["title"],
            found["about"],
            [Column(**each) for each in found["columns"]],
            [Row(**each) for each in found["rows"]],
            dict(found["conditions"]),
        )


def _rank(side: str) -> int:
    return SIDES.index(side) if side in SIDES else len(SIDES)


def _figure(row: Row, column: Column) -> str:
    median, ends = row.median(column.key), row.ends(column.key)
    if median is None or ends is None:
        return "-"
    text = f"{median:.{column.digits}f}"
    if column.spread and len(row.samples) > 1:
        low, high = (f"{end:.{column.digits}f}" for end in ends)
        text += f" [{low}-{high}]"
    return text
