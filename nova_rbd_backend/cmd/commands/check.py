# SPDX-License-Identifier: Apache-2.0

"""nova-rbd check: nova-rbd-check as a table, and for programs."""

import argparse
from collections.abc import Iterable, Sequence
from typing import Any

from cliff import lister

from nova_rbd_backend.checks.steps import Result
from nova_rbd_backend.cmd import check, columns

# command.Lister would need Ceph's modules, which this command checks for.


class Check(lister.Lister):
    """Check whether nova-compute would start here, and its guests too.

    Tries what nova-compute tries when it starts, makes an image for a moment
    to test the rights, and looks for other problems. The exit status is 1 if a
    check failed; warnings do not count.
    """

    need_sort_by_cliff = False  # A cause stands before what follows from it.
    status = 0

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        check.add_arguments(parser)
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        return super().run(parsed_args) or self.status

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[Sequence[str], Iterable[Any]]:
        assert self.app_args is not None
        rows = []
        for row in check.outcomes(self.app_args, parsed_args.glance_user):
            if row.result is Result.FAILED:
                self.status = 1
            remark = columns.Prose(row.remark)
            rows.append((row.name, str(row.result), remark))
        return ("Check", "Result", "Remark"), rows
