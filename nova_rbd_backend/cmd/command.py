# SPDX-License-Identifier: Apache-2.0

"""What the commands have in common: the way to Ceph, and to an image by name.

A table has only the columns that fit on a screen. ``--long`` and all other
formats show every column.
"""

import argparse
import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from cliff import columns, command, lister
from oslo_config import cfg

from nova_rbd_backend import conf as conf_
from nova_rbd_backend import errors
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.cmd import config
from nova_rbd_backend.settings import Settings
from nova_rbd_backend.storage.store import Store
from nova_rbd_backend.storage.survey import children

Row = Sequence[Any]
Table = tuple[Sequence[str], Iterable[Row]]

_SHARED_OPTIONS: dict[str, dict[str, Any]] = {
    "--pool": {
        "action": "append",
        "metavar": "POOL[/NAMESPACE]",
        "help": "look in this pool; may be given several times; by default in "
        "all pools that may have such images",
    },
    "--instance": {
        "metavar": "UUID",
        "help": "only the disks of this instance",
    },
    "--dry-run": {
        "action": "store_true",
        "help": "say what would be done, and change nothing",
    },
}


class Command(command.Command):
    """A command that needs nothing but Ceph.

    :cvar options: those of _SHARED_OPTIONS that the command has
    :ivar status: the exit status of a command that runs to its end
    """

    options: Sequence[str] = ()
    app_args: argparse.Namespace
    status = 0

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        self.add_arguments(parser)
        for option in self.options:
            parser.add_argument(option, **_SHARED_OPTIONS[option])
        return parser

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments that only this command has."""

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Return 1 if something that was asked for was not done."""
        return super().run(parsed_args) or self.status

    @functools.cached_property
    def conf(self) -> cfg.ConfigOpts:
        """nova-compute's configuration."""
        return config.parse(self.app_args)

    @functools.cached_property
    def settings(self) -> Settings:
        """What the configuration comes down to.

        :raises ConfigError: it cannot work, or no disks are on RBD
        """
        settings = conf_.apply(self.conf)
        if not settings.uses_rbd:
            raise errors.ConfigError(
                f"{settings.summary()}: no disk of this host is on RBD"
            )
        return settings

    @functools.cached_property
    def store(self) -> Store:
        """Every pool of this host; nothing is opened yet."""
        return Store(self.settings)

    @functools.cached_property
    def monitors(self) -> tuple[tuple[str, str], ...]:
        """(host, port) of each monitor, as a domain names it."""
        addresses = self.store.cluster.mon_addresses()
        return tuple((each.host, str(each.port)) for each in addresses)

    def pool(self, name: str) -> Pool:
        """Return a pool by ``POOL`` or ``POOL/NAMESPACE``."""
        pool, _, namespace = name.partition("/")
        return Pool(self.store.cluster, pool, namespace)

    def disk_pools(self, named: Iterable[str] | None) -> list[Pool]:
        """Return the named pools, or else all that may have disks."""
        if not named:
            self.store.read_pools()
            named = self.store.pool_names()
        return [self.pool(name) for name in dict.fromkeys(named)]

    def image_pools(self, named: Iterable[str] | None) -> list[Pool]:
        """Return the same; without names, the pool of snapshots too."""
        pools = self.disk_pools(named)
        snapshots = self.settings.snapshot_pool
        if not named and snapshots not in map(str, pools):
            pools.append(self.pool(snapshots))
        return pools

    def places(
        self, image: str, named: Iterable[str] | None
    ) -> tuple[list[Pool], str]:
        """Split ``[POOL/]NAME``.

        :returns: the pools that may have the image, and its name alone
        """
        where, _, name = image.rpartition("/")
        pools = [self.pool(where)] if where else self.image_pools(named)
        return pools, name

    def find(
        self, image: str, named: Iterable[str] | None
    ) -> tuple[Pool, str, str]:
        """Return pool, name and id of an image.

        :param image: ``[POOL/]NAME``
        :raises ImageNotFound: there is no such image
        """
        pools, name = self.places(image, named)
        for pool in pools:
            image_id = pool.directory.image_id(name)
            if image_id is not None:
                return pool, name, image_id
        raise errors.ImageNotFound(
            "no such image",
            operation="look up",
            pool=" or ".join(map(str, pools)),
            image=name,
        )

    def roots(self, image: str) -> list[children.ImageRef]:
        """Return the images of that name or id in Glance, and their bases.

        :raises ImageNotFound: there is none
        """
        found = children.named(self.store.cluster, image)
        if not found:
            raise errors.ImageNotFound(
                "no pool that may be read has such an image",
                operation="look up",
                image=image,
            )
        return found

    def say(self, text: str) -> None:
        """Tell the operator something beside the output, on stderr."""
        self.app.LOG.info(text)


class Lister(Command, lister.Lister):
    """A command that shows a table.

    :cvar in_table: the columns of a table, if not all of them fit
    """

    in_table: Sequence[str] | None = None

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        if self.in_table is not None:
            parser.add_argument(
                "--long",
                action="store_true",
                help="all columns in the table too",
            )
        return parser

    def produce_output(
        self,
        parsed_args: argparse.Namespace,
        column_names: Sequence[str],
        data: Iterable[Row],
    ) -> int:
        if parsed_args.formatter in ("csv", "value"):
            # For an unknown value cliff would write None.
            data = [[_or_empty(value) for value in row] for row in data]
        in_table = self.in_table
        chosen = parsed_args.formatter != "table" or parsed_args.columns
        if in_table is not None and not chosen and not parsed_args.long:
            keep = [name in in_table for name in column_names]
            column_names = tuple(itertools.compress(column_names, keep))
            data = [tuple(itertools.compress(row, keep)) for row in data]
        return super().produce_output(parsed_args, column_names, data)


def _or_empty(value: Any) -> Any:
    known = value
    if isinstance(value, columns.FormattableColumn):
        known = value.machine_readable()
    return "" if known is None else value
