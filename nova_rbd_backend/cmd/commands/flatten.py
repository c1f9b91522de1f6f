# SPDX-License-Identifier: Apache-2.0

"""nova-rbd flatten: give disks data of their own."""

import argparse
import functools

from nova_rbd_backend import errors, names
from nova_rbd_backend.cmd import columns, command, progress
from nova_rbd_backend.storage import fencing
from nova_rbd_backend.storage.survey import children


class Flatten(command.Lister):
    """Copy into a disk, or into each clone of an image, its parent's data.

    Glance can delete an image once all of its clones are flattened. This
    includes clones in the trash, but not those of a base, which is a copy. A
    guest may keep running meanwhile. A guest that is started meanwhile waits
    for the disk, and is refused after 5 s. The exit status is 1 if an image
    could not be flattened.
    """

    options = ("--pool", "--dry-run")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "image",
            metavar="DISK|IMAGE",
            help="a disk's [POOL/]NAME, as 'list' shows it; or the id of an "
            "image in Glance, or [POOL/]NAME of an RBD image",
        )

    def take_action(self, parsed_args: argparse.Namespace) -> command.Table:
        found = self._found(parsed_args)
        if not found:
            self.say("the image has no clones")
        rows = [self._row(image, parsed_args.dry_run) for image in found]
        return ("Name", "Id", "Size", "Result", "Reason"), rows

    def _found(self, arguments: argparse.Namespace) -> list[children.ImageRef]:
        name = arguments.image.rpartition("/")[2]
        if names.DiskName.parse(name):
            pool, _, image_id = self.find(arguments.image, arguments.pool)
            return [children.ImageRef(pool, image_id, name, trashed=False)]
        return [
            clone
            for root in self.roots(arguments.image)
            # With an id in Glance there may be bases among the roots.
            if not names.is_base(root.name or "") or root.name == name
            for clone in children.clones(root)
        ]

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
        """Flatten an image.

        :returns: its size in bytes, what was done, and why it still depends on
            its parent
        """
        opened = image.pool.open
        if not dry_run:
            opened = functools.partial(fencing.fenced, image.pool)
        with opened(image.name, image_id=image.image_id) as disk:
            size = disk.size_bytes()
            if disk.parent() is None:
                return size, "has no parent", None
            if dry_run:
                return size, "would be flattened", None
            with progress.Progress(self.app.stderr, str(image.path)) as told:
                disk.flatten(told)
            snaps = ", ".join(snap.name for snap in disk.snaps())
            reason = None
            if snaps and "deep-flatten" not in disk.layout().features:
                reason = (
                    f"its snaps still depend on the parent ({snaps}), because "
                    "the image lacks the feature deep-flatten"
                )
        return size, "flattened", reason
