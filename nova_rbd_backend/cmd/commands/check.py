# SPDX-License-Identifier: Apache-2.0

"""nova-rbd check: nova-rbd-check as a table, and for programs."""

import argparse
from collections.abc import Iterable, Sequence
from typing import Any

from cliff import lister

from nova_rbd_backend.checks.steps import Result
from nova_rbd_backend.cmd import check, columns


class Check(lister.Lister):
    """Look whether nova-compute would start here, and its guests too.

    Tries what nova-compute tries at its start, makes an image for a moment to
    try the rights, and looks what else may be wrong. The exit status is 1 if
    something failed; what is only warned of does not count.
    """

    status = 0

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add what else to try."""
        parser = super().get_parser(prog_name)
        check.add_arguments(parser)
        return parser

    @property
    def need_sort_by_cliff(self) -> bool:
        """No: the cause stands before what follows from it."""
        return False

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Return 1 if something failed."""
        return super().run(parsed_args) or self.status

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[Sequence[str], Iterable[Any]]:
        """Return a row for each check."""
        assert self.app_args is not None
        rows = list(check.outcomes(self.app_args, parsed_args.glance_user))
        if any(row.result is Result.FAILED for row in rows):
            self.status = 1
        return (
            ("Check", "Result", "Remark"),
            [
                (
                    row.name,
                    str(row.result),
                    columns.Prose(row.remark),
                )
                for row in rows
            ],
        )
