# SPDX-License-Identifier: Apache-2.0

"""nova-rbd list, show: the disks of instances, and what they depend on."""

import argparse
from collections.abc import Iterator
from typing import Any

from cliff import show

from nova_rbd_backend import errors, metadata, names
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.cmd import columns, command
from nova_rbd_backend.storage.survey import holders, inventory


class List(command.Lister):
    """List the disks of instances."""

    options = ("--pool", "--instance")
    in_table = ("Name", "Size", "Used", "Parent", "Depth", "Lock owner")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--used",
            action="store_true",
            help="also count the space that each disk takes, as 'rbd du' "
            "does; this takes 10 ms a disk, but long without fast-diff",
        )

    def take_action(self, parsed_args: argparse.Namespace) -> command.Table:
        titles = [
            *("Pool", "Name", "Instance", "Disk", "Project", "Image", "Class"),
            *("Size", "Used", "Parent", "Depth", "Lock owner"),
        ]
        if not parsed_args.used:
            titles.remove("Used")
        return titles, list(self._rows(parsed_args))

    def _rows(self, arguments: argparse.Namespace) -> Iterator[command.Row]:
        for pool in self.disk_pools(arguments.pool):
            for disk in inventory.disks(pool, arguments.instance):
                used = []
                if arguments.used:
                    used.append(columns.Size(_used_bytes(disk)))
                owner = disk.lock_owner
                yield (
                    str(pool),
                    disk.name,
                    *_described(disk).values(),
                    columns.Size(disk.size_bytes),
                    *used,
                    columns.Parent(disk.parent),
                    disk.depth,
                    columns.Text(None if owner is None else f"client.{owner}"),
                )


def _described(disk: inventory.DiskInfo) -> dict[str, Any]:
    """Return what a disk's name and its metadata say."""
    whose = names.DiskName.parse(disk.name)
    noted = disk.metadata.get
    return {
        "Instance": columns.Text(whose.instance_uuid if whose else None),
        "Disk": columns.Text(whose.disk if whose else None),
        "Project": columns.Text(noted(f"{metadata.PREFIX}project")),
        "Image": columns.Text(noted(f"{metadata.PREFIX}base_image")),
        "Class": columns.Text(noted(metadata.CLASS)),
    }


def _used_bytes(disk: inventory.DiskInfo) -> int | None:
    try:
        with disk.pool.open(image_id=disk.image_id) as opened:
            return opened.used_bytes()
    except errors.ImageNotFound:
        return None


class Show(command.Command, show.ShowOne):
    """Show all about one disk: what it is, who holds it, how it is stored."""

    options = ("--pool",)

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "disk",
            metavar="DISK",
            help="[POOL/]NAME of the RBD image, as 'list' shows it",
        )

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        facts = _facts(*self.find(parsed_args.disk, parsed_args.pool))
        return tuple(facts), tuple(facts.values())


def _facts(pool: Pool, name: str, image_id: str) -> dict[str, Any]:
    disk = inventory.describe(pool, name, image_id)
    held = holders.holders_of(pool, {name: image_id})
    with pool.open(image_id=image_id) as opened:
        layout, snaps = opened.layout(), opened.snaps()
        parent, used = opened.parent(), opened.used_bytes()
    return {
        "Pool": str(pool),
        "Name": name,
        "Id": image_id,
        **_described(disk),
        "Size": columns.Size(disk.size_bytes),
        "Used": columns.Size(used),
        "Parent": columns.Text(str(parent) if parent else None),
        "Depth": disk.depth,
        "Snaps": columns.Lines([snap.name for snap in snaps if snap.user]),
        "Holders": columns.Lines(held),
        "Data pool": layout.data_pool or pool.name,
        "Object size": columns.Size(layout.object_bytes),
        "Stripe unit": columns.Size(layout.stripe_unit_bytes),
        "Stripe count": layout.stripe_count,
        "Features": columns.Lines(layout.features),
        "Created": columns.Time(layout.created_at),
        "Metadata": columns.Pairs(disk.metadata),
    }
