# SPDX-License-Identifier: Apache-2.0

"""nova-rbd bases, children: what hangs on what."""

import argparse
from collections.abc import Iterator
from typing import Any

from nova_rbd_backend import errors, metadata, names
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.cmd import columns, command
from nova_rbd_backend.cmd.command import roots
from nova_rbd_backend.names import kind
from nova_rbd_backend.storage.survey import children


class Bases(command.Lister):
    """List the bases: copies of images that disks are cloned from."""

    in_table = ("Image", "Size", "Used", "Clones", "Last used", "Created")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add where to look."""
        parser = super().get_parser(prog_name)
        command.add_pool(parser, "the pools of the disks")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> command.Table:
        """Return a row for each base."""
        titles = (
            *("Pool", "Name", "Image", "Format", "Size", "Used"),
            *("Clones", "Last used", "Created"),
        )
        rows = [
            row
            for pool in self.pools(parsed_args.pool)
            for row in _bases(pool)
        ]
        return self.fitting(parsed_args, (titles, rows))


def _bases(pool: Pool) -> Iterator[command.Row]:
    for name, image_id in sorted(
        pool.directory.ids(names.BASE_PREFIX).items()
    ):
        if names.final_name(name) != name:
            continue
        try:
            with pool.open(image_id=image_id) as opened:
                size, used = opened.size_bytes(), opened.used_bytes()
                created = opened.layout().created_at
        except errors.ImageNotFound:
            continue  # aged out meanwhile
        said = pool.headers.metadata(image_id)
        last = said.get(metadata.LAST_USED, "")
        yield (
            str(pool),
            name,
            columns.Text(_source(name, said)),
            columns.Text(said.get(f"{metadata.PREFIX}image_format")),
            columns.Size(size),
            columns.Size(used),
            len(pool.headers.clone_ids(image_id)),
            columns.Time(
                columns.seconds_to_time(
                    float(last) if last.isdecimal() else None
                )
            ),
            columns.Time(created),
        )


def _source(name: str, said: dict[str, str]) -> str | None:
    """Glance's id, or what Nova calls a disk that it generates."""
    return said.get(f"{metadata.PREFIX}image") or names.base_source(name)


class Children(command.Lister):
    """List all that hangs on an image of Glance, in all pools.

    Also what is in the trash, and what hangs on a clone. While there is any
    clone of the image itself Glance cannot delete it. A base is a copy: what
    hangs on it is listed too, and does not hold the image.
    """

    in_table = ("Name", "Kind", "Level", "Parent", "Trash")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add of what."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "image",
            metavar="IMAGE",
            help="the image's id in Glance, or the name of an RBD image, "
            "or POOL/NAME",
        )
        return parser

    @property
    def need_sort_by_cliff(self) -> bool:
        """No: each is followed by its own clones."""
        return False

    def take_action(self, parsed_args: argparse.Namespace) -> command.Table:
        """Return a row for each clone."""
        titles = (
            *("Name", "Id", "Kind", "Instance", "Level", "Parent", "Trash"),
        )
        rows = [
            _row(clone)
            for root in roots(self, parsed_args.image)
            for clone in children.below(root)
        ]
        if not rows:
            self.say("nothing hangs on it")
        return self.fitting(parsed_args, (titles, rows))


def _row(clone: children.Clone) -> tuple[Any, ...]:
    image = clone.image
    disk = names.DiskName.parse(names.final_name(image.name or ""))
    return (
        str(image.path),
        image.image_id,
        kind(image.name),
        columns.Text(disk.instance_uuid if disk else None),
        clone.level,
        columns.Parent(clone.parent.path),
        columns.Flag(image.trashed),
    )
