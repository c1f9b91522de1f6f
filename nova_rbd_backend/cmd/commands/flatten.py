# SPDX-License-Identifier: Apache-2.0

"""nova-rbd flatten: give disks data of their own."""

import argparse
from collections.abc import Iterator

from nova_rbd_backend import errors, names
from nova_rbd_backend.cmd import columns, command, progress
from nova_rbd_backend.cmd.command import roots
from nova_rbd_backend.storage.survey import children


class Flatten(command.Lister):
    """Copy what a disk, or each clone of an image, shares with its parent.

    Afterwards nothing of it hangs on the image, which Glance can delete once
    all of its clones are flattened: those in the trash too, but not those of
    a base, which is a copy. A guest may run meanwhile; one that is started
    meanwhile waits, and is refused after 5 s. The exit status is 1 if one
    could not be flattened.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add what."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "image",
            metavar="DISK|IMAGE",
            help="a disk's name, as 'list' shows it; or the id of an image "
            "in Glance, or the name of an RBD image; or POOL/NAME",
        )
        command.add_pool(parser, "the pools of disks and of snapshots")
        command.add_dry_run(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> command.Table:
        """Flatten them; return a row for each."""
        titles = ("Name", "Id", "Size", "Result", "Reason")
        found = list(self._found(parsed_args))
        if not found:
            self.say("nothing hangs on it")
        rows = [self._row(image, parsed_args.dry_run) for image in found]
        return titles, rows

    def _found(
        self, arguments: argparse.Namespace
    ) -> Iterator[children.ImageRef]:
        name = arguments.image.rpartition("/")[2]
        if names.DiskName.parse(name):
            pool, image_id = self.find(arguments.image, arguments.pool)
            yield children.ImageRef(pool, image_id, name, trashed=False)
            return
        for root in roots(self, arguments.image):
            # Of an image's id there may be bases too: they are copies.
            if not names.is_base(root.name or "") or root.name == name:
                yield from children.clones(root)

    def _row(self, image: children.ImageRef, dry_run: bool) -> command.Row:
        size: int | None = None
        result = "failed"
        reason: str | None = "its pool may not be read"
        if image.name is not None:
            try:
                size, result, reason = self._flattened(image, dry_run)
            except errors.StorageError as error:
                reason = error.reason or type(error).__name__
        if reason is not None:
            self.status = 1
        return (
            str(image.path),
            image.image_id,
            columns.Size(size),
            result,
            columns.Text(reason),
        )

    def _flattened(
        self, image: children.ImageRef, dry_run: bool
    ) -> tuple[int, str, str | None]:
        """Size in bytes, what was done, and why it hangs on a parent yet."""
        told = progress.Progress(self.app.stderr, str(image.path))
        opened = image.pool.open(image_id=image.image_id, read_only=dry_run)
        with opened as disk:
            size = disk.size_bytes()
            if disk.parent() is None:
                return size, "has no parent", None
            if dry_run:
                return size, "would be flattened", None
            try:
                disk.flatten(told)
            finally:
                told.end()
            snaps = ", ".join(snap.name for snap in disk.snaps())
            features = disk.layout().features
        if snaps and "deep-flatten" not in features:
            return (
                size,
                "flattened",
                f"its snaps hang on the parent yet ({snaps}), for it has no "
                "feature deep-flatten",
            )
        return size, "flattened", None
