# SPDX-License-Identifier: Apache-2.0

"""nova-rbd: what lies on the cluster, and how to mend it.

Reads nova-compute's configuration, needs neither a Nova nor a nova-compute
that runs. The commands are the entry points ``nova_rbd.commands``.
"""

import argparse
import importlib.metadata
import sys
from typing import Any, NoReturn

from cliff import app, commandmanager
from oslo_config import cfg

from nova_rbd_backend import conf, errors
from nova_rbd_backend.cmd import config, leaving
from nova_rbd_backend.settings import Settings


class NovaRbd(app.App):
    """The program; its commands find their settings here."""

    NAME = "nova-rbd"

    def __init__(self) -> None:
        super().__init__(
            description="Show and mend what Nova keeps on Ceph RBD.",
            version=importlib.metadata.version("nova-rbd-backend"),
            command_manager=commandmanager.CommandManager("nova_rbd.commands"),
        )

    def build_option_parser(
        self,
        description: str | None,
        version: str | None,
        argparse_kwargs: dict[str, Any] | None = None,
    ) -> argparse.ArgumentParser:
        """Add the options of all commands."""
        named = {"prog": self.NAME, **(argparse_kwargs or {})}
        parser = super().build_option_parser(description, version, named)
        config.add_arguments(parser)
        return parser

    def run(self, argv: list[str]) -> int:
        """Run a command; 1 without one, which not every cliff returns."""
        result = super().run(argv)
        return 1 if self.interactive_mode else result

    def interact(self) -> None:
        """Without a command there is only help: no shell of its own."""
        self.parser.print_usage(self.stderr)
        self.stderr.write(f"see '{self.NAME} help' for its commands\n")

    def configuration(self) -> cfg.ConfigOpts:
        """Return nova-compute's configuration, as it is read here.

        :raises errors.ConfigError: it cannot be read
        """
        try:
            return config.parse(self.options)
        except cfg.Error as error:
            raise errors.ConfigError(str(error)) from error

    def settings(self) -> Settings:
        """Return what the configuration comes down to.

        :raises errors.ConfigError: it cannot work, or no disks are on RBD
        """
        try:
            settings = conf.apply(self.configuration())
        except cfg.Error as error:
            raise errors.ConfigError(str(error)) from error
        if not settings.uses_rbd:
            raise errors.ConfigError(
                f"{settings.summary()}: no disk of this host is on RBD"
            )
        return settings


def main(argv: list[str] | None = None) -> int:
    """Run one command; return 0 if it did what it was asked, 1 if not."""
    arguments = sys.argv[1:] if argv is None else argv
    return NovaRbd().run(arguments)


def program() -> NoReturn:
    """Run ``nova-rbd``."""
    leaving.leave(main())


if __name__ == "__main__":
    program()
