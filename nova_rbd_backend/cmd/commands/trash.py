# SPDX-License-Identifier: Apache-2.0

"""nova-rbd trash list, restore, purge: what was deleted and is not freed."""

import argparse
from collections.abc import Iterable, Iterator

from nova_rbd_backend import errors, names
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.ceph.trash import TrashedImage
from nova_rbd_backend.cmd import columns, command
from nova_rbd_backend.storage.images import purge, restore
from nova_rbd_backend.storage.images.retention import Retention

# An operator waits as long as a purge takes, or interrupts it.
_NO_LIMIT_SECONDS = 7 * 24 * 3600.0
_NO_LIMIT_IMAGES = 1_000_000


class TrashList(command.Lister):
    """List the deleted images whose space has not been freed.

    An image that is kept or due can be restored, until its space is being
    freed. An unmanaged image was moved to the trash by other means, and stays
    there.
    """

    options = ("--pool", "--instance")
    in_table = ("Name", "Id", "Kind", "Size", "Deleted", "Kept until", "State")

    def take_action(self, parsed_args: argparse.Namespace) -> command.Table:
        titles = (
            *("Pool", "Name", "Id", "Kind", "Instance", "Size"),
            *("Deleted", "Kept until", "State"),
        )
        rows: list[command.Row] = []
        for pool in self.image_pools(parsed_args.pool):
            for trashed in restore.trashed(pool):
                image = trashed.image
                instance = columns.instance_of(image.name)
                if parsed_args.instance and parsed_args.instance != instance:
                    continue
                rows.append(
                    (
                        *_named(pool, image),
                        names.kind(image.name),
                        columns.Text(instance),
                        columns.Size(trashed.size_bytes),
                        columns.Time(trashed.deleted_at),
                        columns.Time(image.kept_until),
                        str(trashed.fate),
                    )
                )
        return titles, rows


def _named(pool: Pool, image: TrashedImage) -> tuple[str, str, str]:
    return str(pool), image.name, image.image_id


class TrashCommand(command.Lister):
    """A command for images in the trash."""

    def find_trashed(
        self, images: Iterable[str], named: Iterable[str] | None
    ) -> list[tuple[Pool, TrashedImage]]:
        """Return pool and image of each name or id, or ``POOL/`` and that.

        :raises ImageNotFound: there is no such image
        :raises ImageExists: there are several of that name
        """
        found = []
        for image in images:
            pools, name = self.places(image, named)
            trashed = [
                (pool, each)
                for pool in pools
                for each in restore.find(pool, name)
            ]
            if len(trashed) != 1:
                fault: type[errors.StorageError] = errors.ImageNotFound
                reason = "it is not there"
                if trashed:
                    fault = errors.ImageExists
                    ids = ", ".join(f"{p}/{i.image_id}" for p, i in trashed)
                    reason = f"there are several: name one by its id, {ids}"
                raise fault(
                    reason,
                    operation="look in the trash of",
                    pool=" or ".join(map(str, pools)),
                    image=name,
                )
            found += trashed
        return found


class TrashRestore(TrashCommand):
    """Restore deleted disks, each under its name.

    A guest that is started afterwards has its disk again. This is refused if
    the name is in use.
    """

    options = ("--pool", "--dry-run")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        _add_images(parser)

    def take_action(self, parsed_args: argparse.Namespace) -> command.Table:
        work, result = restore.restore, "restored"
        if parsed_args.dry_run:
            work, result = restore.check, "would be restored"
        rows = []
        for found in self.find_trashed(parsed_args.images, parsed_args.pool):
            work(*found)
            rows.append((*_named(*found), result))
        return ("Pool", "Name", "Id", "Result"), rows


class TrashPurge(TrashCommand):
    """Free the space of deleted disks.

    Without names, this frees all that are due, as nova-compute does by itself.
    A disk that is still to be kept is freed only if it is named and --force is
    given. The exit status is 1 if a named disk is not freed.
    """

    options = ("--pool", "--dry-run")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        _add_images(parser, "*", "; by default all that are due")
        parser.add_argument(
            "--force",
            action="store_true",
            help="also free named disks that are still to be kept; they "
            "cannot be restored afterwards",
        )

    def take_action(self, parsed_args: argparse.Namespace) -> command.Table:
        rows: list[command.Row] = []
        if parsed_args.images:
            rows += self._purged(parsed_args)
        elif parsed_args.force:
            raise errors.ConfigError("--force needs the names of the disks")
        else:
            purged = _would_purge if parsed_args.dry_run else self._purge
            for pool in self.image_pools(parsed_args.pool):
                rows += purged(pool)
        return ("Pool", "Name", "Id", "Result", "Reason"), rows

    def _purged(self, arguments: argparse.Namespace) -> Iterator[command.Row]:
        force = arguments.force
        for pool, image in self.find_trashed(arguments.images, arguments.pool):
            if arguments.dry_run:
                result = "would be purged"
                reason = None if force else Retention(pool).reason(image)
            else:
                result = "purged"
                kept = purge.purge_one(pool, image.name, image.image_id, force)
                reason = kept.reason if kept else None
            if reason is not None:
                self.status, result = 1, "kept"
            yield (*_named(pool, image), result, columns.Text(reason))

    def _purge(self, pool: Pool) -> Iterator[command.Row]:
        report = purge.purge(pool, _NO_LIMIT_SECONDS, _NO_LIMIT_IMAGES)
        if report.clock is not None:
            self.say(f"{pool}: {report.clock}")
        nothing = columns.Text(None)
        for name in report.purged:
            yield str(pool), name, nothing, "purged", nothing
        for kept in (*report.waiting, *report.stuck):
            what = (str(pool), kept.image, columns.Text(kept.image_id or None))
            yield (*what, "kept", columns.Text(kept.reason))


def _would_purge(pool: Pool) -> Iterator[command.Row]:
    for trashed in restore.trashed(pool):
        if trashed.fate is restore.Fate.DUE:
            what = _named(pool, trashed.image)
            yield (*what, "would be purged", columns.Text(None))


def _add_images(
    parser: argparse.ArgumentParser, number: str = "+", more: str = ""
) -> None:
    parser.add_argument(
        "images",
        metavar="DISK",
        nargs=number,
        help=f"[POOL/]NAME, or [POOL/]ID as 'trash list' shows it{more}",
    )
