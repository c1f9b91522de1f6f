# SPDX-License-Identifier: Apache-2.0

"""nova-rbd list, show: whose disks there are, and what each hangs on."""

import argparse
from collections.abc import Iterator
from typing import Any

from nova_rbd_backend import errors, metadata, names
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.cmd import columns, command
from nova_rbd_backend.storage.survey import holders, inventory


class List(command.Lister):
    """List the disks of instances."""

    in_table = ("Name", "Size", "Used", "Parent", "Depth", "Lock owner")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add what to list, and how much of it."""
        parser = super().get_parser(prog_name)
        command.add_pool(parser, "the pools of the disks")
        command.add_instance(parser)
        parser.add_argument(
            "--used",
            action="store_true",
            help="also count what each takes, as 'rbd du' does; takes "
            "10 ms for each, or long for those without fast-diff",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> command.Table:
        """Return a row for each disk."""
        titles = [
            *("Pool", "Name", "Instance", "Disk", "Project", "Image", "Class"),
            *("Size", "Used", "Parent", "Depth", "Lock owner"),
        ]
        if not parsed_args.used:
            titles.remove("Used")
        rows = list(self._rows(parsed_args))
        return self.fitting(parsed_args, (titles, rows))

    def _rows(self, arguments: argparse.Namespace) -> Iterator[command.Row]:
        for pool in self.pools(arguments.pool):
            for disk in inventory.disks(pool, arguments.instance):
                used = []
                if arguments.used:
                    used.append(columns.Size(_used_bytes(disk)))
                whose = names.DiskName.parse(disk.name)
                yield (
                    str(pool),
                    disk.name,
                    whose.instance_uuid if whose else None,
                    whose.disk if whose else None,
                    columns.Text(_said(disk, "project")),
                    columns.Text(_said(disk, "base_image")),
                    columns.Text(disk.metadata.get(metadata.CLASS)),
                    columns.Size(disk.size_bytes),
                    *used,
                    columns.Parent(disk.parent),
                    disk.depth,
                    columns.Text(_client(disk.lock_owner)),
                )


def _said(disk: inventory.DiskInfo, key: str) -> str | None:
    return disk.metadata.get(metadata.PREFIX + key)


def _client(client_id: int | None) -> str | None:
    return None if client_id is None else f"client.{client_id}"


def _used_bytes(disk: inventory.DiskInfo) -> int | None:
    try:
        with disk.pool.open(image_id=disk.image_id) as opened:
            return opened.used_bytes()
    except errors.ImageNotFound:
        return None


class Show(command.ShowOne):
    """Show all of one disk: what it is, who holds it, how it is stored."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add which."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "disk",
            metavar="DISK",
            help="the RBD image's name, as 'list' shows it, or POOL/NAME",
        )
        command.add_pool(parser, "the pools of disks and of snapshots")
        return parser

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        """Return what is known."""
        pool, image_id = self.find(parsed_args.disk, parsed_args.pool)
        name = parsed_args.disk.rpartition("/")[2]
        facts = _facts(pool, name, image_id)
        return tuple(facts), tuple(facts.values())


def _facts(pool: Pool, name: str, image_id: str) -> dict[str, Any]:
    disk = inventory.describe(pool, name, image_id)
    held = holders.holders_of(pool, {name: image_id})
    with pool.open(image_id=image_id) as opened:
        layout, snaps = opened.layout(), opened.snaps()
        parent, used = opened.parent(), opened.used_bytes()
    whose = names.DiskName.parse(name)
    return {
        "Pool": str(pool),
        "Name": name,
        "Id": image_id,
        "Instance": columns.Text(whose.instance_uuid if whose else None),
        "Disk": columns.Text(whose.disk if whose else None),
        "Project": columns.Text(_said(disk, "project")),
        "Image": columns.Text(_said(disk, "base_image")),
        "Class": columns.Text(disk.metadata.get(metadata.CLASS)),
        "Size": columns.Size(disk.size_bytes),
        "Used": columns.Size(used),
        "Parent": columns.Text(str(parent) if parent else None),
        "Depth": disk.depth,
        "Snaps": columns.Lines([snap.name for snap in snaps if snap.user]),
        "Holders": columns.Lines(list(map(str, held))),
        "Data pool": layout.data_pool or pool.name,
        "Object size": columns.Size(layout.object_bytes),
        "Stripe unit": columns.Size(layout.stripe_unit_bytes),
        "Stripe count": layout.stripe_count,
        "Features": columns.Lines(layout.features),
        "Created": columns.Time(layout.created_at),
        "Metadata": columns.Pairs(disk.metadata),
    }
