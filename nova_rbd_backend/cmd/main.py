# SPDX-License-Identifier: Apache-2.0

"""nova-rbd: show and repair what Nova keeps on the cluster.

Reads nova-compute's configuration, and needs neither Nova nor a running
nova-compute. The commands are the entry points ``nova_rbd.commands``.
"""

import argparse
import importlib.metadata
import sys
from typing import Any, NoReturn

from cliff import app, commandmanager

from nova_rbd_backend.cmd import config, leaving


class NovaRbd(app.App):
    """The program."""

    NAME = "nova-rbd"

    def __init__(self) -> None:
        super().__init__(
            description="Show and repair what Nova keeps on Ceph RBD.",
            version=importlib.metadata.version("nova-rbd-backend"),
            command_manager=commandmanager.CommandManager("nova_rbd.commands"),
        )

    def build_option_parser(
        self, *args: Any, **kwargs: Any
    ) -> argparse.ArgumentParser:
        parser = super().build_option_parser(*args, **kwargs)
        parser.prog = self.NAME
        config.add_arguments(parser)
        return parser

    def run(self, argv: list[str]) -> int:
        result = super().run(argv)
        # Not every cliff returns 1 if no command is given.
        return 1 if self.interactive_mode else result

    def interact(self) -> None:
        """Print how to get help; there is no interactive shell."""
        self.parser.print_usage(self.stderr)
        self.stderr.write(f"see '{self.NAME} help' for its commands\n")


def main(argv: list[str] | None = None) -> int:
    """Run one command; return 0 if it did what it was asked, otherwise 1."""
    return NovaRbd().run(sys.argv[1:] if argv is None else argv)


def program() -> NoReturn:
    """Run ``nova-rbd``."""
    leaving.leave(main())


if __name__ == "__main__":
    program()
