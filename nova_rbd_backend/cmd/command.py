# SPDX-License-Identifier: Apache-2.0

"""What the commands have in common: the way to Ceph, and to a disk by name.

A table shows what fits on a screen, ``--long`` and all other formats have
every column.
"""

import argparse
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from cliff import columns, command, lister, show

from nova_rbd_backend import errors
from nova_rbd_backend.ceph.cluster import Cluster
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.settings import Settings
from nova_rbd_backend.storage.store import Store
from nova_rbd_backend.storage.survey import children

Row = Sequence[Any]
Table = tuple[Sequence[str], Iterable[Row]]


class Command(command.Command):
    """A command that needs nothing but Ceph.

    :ivar status: the exit status of a command that comes to its end
    """

    status = 0
    _settings: Settings | None = None

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Return 1 if something that was asked for was not done."""
        return super().run(parsed_args) or self.status

    @property
    def program(self) -> Any:
        """The main.NovaRbd whose command it is."""
        return self.app

    @property
    def settings(self) -> Settings:
        """The configuration; read once."""
        if self._settings is None:
            self._settings = self.program.settings()
        assert self._settings is not None
        return self._settings

    @property
    def store(self) -> Store:
        """Every pool of this host; nothing is opened yet."""
        return Store(self.settings)

    @property
    def cluster(self) -> Cluster:
        """The cluster; nothing is opened yet."""
        return self.store.cluster

    def pools(self, named: Iterable[str] | None) -> list[Pool]:
        """Return the pools that were named, else all that may have disks."""
        return [self.pool(name) for name in (named or self._disk_pools())]

    def own_pools(self, named: Iterable[str] | None) -> list[Pool]:
        """Return the pools that were named, else the snapshots' too."""
        if named:
            return self.pools(named)
        own = (*self._disk_pools(), self.settings.snapshot_pool)
        return self.pools(dict.fromkeys(own))

    def _disk_pools(self) -> tuple[str, ...]:
        """Names of the pools of all storage classes, present and former."""
        store = self.store
        store.read_pools()
        return store.pool_names()

    def pool(self, name: str) -> Pool:
        """Return a pool by ``POOL`` or ``POOL/NAMESPACE``."""
        pool, _, namespace = name.partition("/")
        return Pool(self.cluster, pool, namespace)

    def find(
        self, image: str, named: Iterable[str] | None
    ) -> tuple[Pool, str]:
        """Return pool and id of an image.

        :param image: its name, or ``POOL/NAME``
        :raises ImageNotFound: there is no such image
        """
        where, _, name = image.rpartition("/")
        pools = [self.pool(where)] if where else self.own_pools(named)
        for pool in pools:
            image_id = pool.directory.image_id(name)
            if image_id is not None:
                return pool, image_id
        raise errors.ImageNotFound(
            "no such image",
            operation="look up",
            pool=" or ".join(map(str, pools)),
            image=name,
        )

    def say(self, text: str) -> None:
        """Tell the operator something beside the output, on stderr."""
        self.app.LOG.info(text)


class Lister(Command, lister.Lister):
    """A command that shows a table.

    :cvar in_table: the columns of a table, where not all fit
    """

    in_table: Sequence[str] | None = None

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add ``--long`` where there are more columns than in a table."""
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
        """Leave empty what is unknown, where cliff would write None."""
        if parsed_args.formatter in ("csv", "value"):
            data = [[_or_empty(value) for value in row] for row in data]
        return super().produce_output(parsed_args, column_names, data)

    def fitting(self, arguments: argparse.Namespace, table: Table) -> Table:
        """Leave out what doesn't fit into a table."""
        names, rows = table
        asked = arguments.formatter != "table" or arguments.columns
        if self.in_table is None or asked or arguments.long:
            return names, rows
        keep = [name in self.in_table for name in names]
        return (
            tuple(itertools.compress(names, keep)),
            [tuple(itertools.compress(row, keep)) for row in rows],
        )


def _or_empty(value: Any) -> Any:
    if isinstance(value, columns.FormattableColumn):
        return "" if value.machine_readable() is None else value
    return "" if value is None else value


class ShowOne(Command, show.ShowOne):
    """A command that shows one thing."""


def add_pool(parser: argparse.ArgumentParser, default: str) -> None:
    """Add ``--pool``; it may be given several times."""
    parser.add_argument(
        "--pool",
        action="append",
        metavar="POOL[/NAMESPACE]",
        help=f"look here; by default {default}",
    )


def add_instance(parser: argparse.ArgumentParser) -> None:
    """Add ``--instance``."""
    parser.add_argument(
        "--instance", metavar="UUID", help="the disks of this one alone"
    )


def add_dry_run(parser: argparse.ArgumentParser) -> None:
    """Add ``--dry-run``."""
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="say what would be done, and change nothing",
    )


def roots(asking: Command, image: str) -> list[children.ImageRef]:
    """Return the images of that name or id in Glance, and their bases.

    :raises ImageNotFound: there is none
    """
    found = children.named(asking.cluster, image)
    if not found:
        raise errors.ImageNotFound(
            "no pool that may be read has such an image",
            operation="look up",
            image=image,
        )
    return found
