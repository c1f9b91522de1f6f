# SPDX-License-Identifier: Apache-2.0

"""nova-rbd trash list, restore, purge: deleted disks, and how to get them."""

import argparse
from collections.abc import Iterable, Iterator
from typing import Any

from nova_rbd_backend import errors, names
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.ceph.trash import TrashedImage
from nova_rbd_backend.cmd import columns, command
from nova_rbd_backend.names import kind
from nova_rbd_backend.storage.images import purge, restore

# As long as it takes: an operator waits for it, or breaks it off.
_NO_LIMIT_SECONDS = 7 * 24 * 3600.0
_NO_LIMIT_IMAGES = 1_000_000


class TrashList(command.Lister):
    """List what was deleted and is in the trash still.

    What is kept can be restored; what is due, too, until its space is given
    back. What is unmanaged was moved there by other means, and stays.
    """

    in_table = ("Name", "Id", "Kind", "Size", "Deleted", "Kept until", "State")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add where to look, and for what."""
        parser = super().get_parser(prog_name)
        command.add_pool(parser, "the pools of disks and of snapshots")
        command.add_instance(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> command.Table:
        """Return a row for each image."""
        titles = (
            *("Pool", "Name", "Id", "Kind", "Instance", "Size"),
            *("Deleted", "Kept until", "State"),
        )
        rows = [
            _row(pool, trashed)
            for pool in self.own_pools(parsed_args.pool)
            for trashed in restore.trashed(pool)
            if not parsed_args.instance
            or _instance(trashed.image.name) == parsed_args.instance
        ]
        return self.fitting(parsed_args, (titles, rows))


def _instance(name: str) -> str | None:
    disk = names.DiskName.parse(names.final_name(name))
    return disk.instance_uuid if disk else None


def _row(pool: Pool, trashed: restore.Deleted) -> command.Row:
    image = trashed.image
    return (
        str(pool),
        image.name,
        image.image_id,
        kind(image.name),
        columns.Text(_instance(image.name)),
        columns.Size(trashed.size_bytes),
        columns.Time(trashed.deleted_at),
        columns.Time(image.kept_until),
        str(trashed.fate),
    )


class TrashCommand(command.Lister):
    """A command for images in the trash."""

    def find_trashed(
        self, image: str, named: Iterable[str] | None
    ) -> tuple[Pool, TrashedImage]:
        """Return pool and image of a name or an id, or ``POOL/`` that.

        :raises ImageNotFound: there is none
        :raises ImageExists: there are several of that name
        """
        where, _, name = image.rpartition("/")
        pools = [self.pool(where)] if where else self.own_pools(named)
        found = [
            (pool, each) for pool in pools for each in restore.find(pool, name)
        ]
        facts: dict[str, Any] = {
            "operation": "look in the trash of",
            "pool": " or ".join(map(str, pools)),
            "image": name,
        }
        if not found:
            raise errors.ImageNotFound("it is not there", **facts)
        if len(found) > 1:
            ids = ", ".join(f"{pool}/{each.image_id}" for pool, each in found)
            raise errors.ImageExists(
                f"there are several: name one by its id, {ids}", **facts
            )
        return found[0]


class TrashRestore(TrashCommand):
    """Have deleted disks back, each under its name.

    A guest that is started then has its disk again. Refused where the name
    is taken.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add which."""
        parser = super().get_parser(prog_name)
        _add_images(parser)
        command.add_pool(parser, "the pools of disks and of snapshots")
        command.add_dry_run(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> command.Table:
        """Restore them; return a row for each."""
        found = [
            self.find_trashed(image, parsed_args.pool)
            for image in parsed_args.images
        ]
        rows = []
        for pool, image in found:
            if parsed_args.dry_run:
                restore.check(pool, image)
            else:
                restore.restore(pool, image)
            done = "would be restored" if parsed_args.dry_run else "restored"
            rows.append((str(pool), image.name, image.image_id, done))
        return ("Pool", "Name", "Id", "Result"), rows


class TrashPurge(TrashCommand):
    """Give the space of deleted disks back.

    Of those that are named, otherwise of all that are due, as nova-compute
    does it by itself. What is to be kept for a time yet is not touched, but
    with --force. The exit status is 1 if one that is named is not purged.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add which."""
        parser = super().get_parser(prog_name)
        _add_images(parser, "*", "; by default all that are due")
        command.add_pool(parser, "the pools of disks and of snapshots")
        parser.add_argument(
            "--force",
            action="store_true",
            help="also those that are named and should be kept yet: they "
            "cannot be had back",
        )
        command.add_dry_run(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> command.Table:
        """Purge them; return a row for each."""
        titles = ("Pool", "Name", "Id", "Result", "Reason")
        if parsed_args.images:
            return titles, list(self._named(parsed_args))
        if parsed_args.force:
            raise errors.ConfigError("--force needs the names of the disks")
        rows = [
            row
            for pool in self.own_pools(parsed_args.pool)
            for row in (
                _would_purge(pool) if parsed_args.dry_run else _purge(pool)
            )
        ]
        return titles, rows

    def _named(self, arguments: argparse.Namespace) -> Iterator[command.Row]:
        found = [
            self.find_trashed(image, arguments.pool)
            for image in arguments.images
        ]
        for pool, image in found:
            what = (str(pool), image.name, image.image_id)
            reason, done = _purged(pool, image, arguments)
            self.status = 1 if reason else self.status
            yield (*what, done, columns.Text(reason))


def _purged(
    pool: Pool, image: TrashedImage, arguments: argparse.Namespace
) -> tuple[str | None, str]:
    """Why it is kept, and what became of it."""
    if arguments.dry_run:
        reason = purge.retention(pool, image.image_id)
        reason = None if arguments.force else reason
        return reason, "kept" if reason else "would be purged"
    kept = purge.purge_one(pool, image.name, image.image_id, arguments.force)
    return (kept.reason, "kept") if kept else (None, "purged")


def _would_purge(pool: Pool) -> Iterator[command.Row]:
    for trashed in restore.trashed(pool):
        if trashed.fate is restore.Fate.DUE:
            image = trashed.image
            what = (str(pool), image.name, image.image_id)
            yield (*what, "would be purged", columns.Text(None))


def _purge(pool: Pool) -> Iterator[command.Row]:
    report = purge.purge(pool, _NO_LIMIT_SECONDS, _NO_LIMIT_IMAGES)
    for name in report.purged:
        nothing = columns.Text(None)
        yield str(pool), name, nothing, "purged", nothing
    for kept in (*report.waiting, *report.stuck):
        what = (str(pool), kept.image, columns.Text(kept.image_id or None))
        yield (*what, "kept", columns.Text(kept.reason))


def _add_images(
    parser: argparse.ArgumentParser, number: str = "+", more: str = ""
) -> None:
    parser.add_argument(
        "images",
        metavar="DISK",
        nargs=number,
        help=f"name or id, as 'trash list' shows it, or POOL/NAME{more}",
    )
