# SPDX-License-Identifier: Apache-2.0

"""nova-rbd bases, children: what disks and other clones depend on."""

import argparse
import datetime
from collections.abc import Iterator

from nova_rbd_backend import errors, metadata, names
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.cmd import columns, command
from nova_rbd_backend.storage.survey import children


class Bases(command.Lister):
    """List the bases: copies of images that disks are cloned from."""

    options = ("--pool",)
    in_table = ("Image", "Size", "Used", "Clones", "Last used", "Created")

    def take_action(self, parsed_args: argparse.Namespace) -> command.Table:
        titles = (
            *("Pool", "Name", "Image", "Format", "Size", "Used"),
            *("Clones", "Last used", "Created"),
        )
        pools = self.disk_pools(parsed_args.pool)
        return titles, [row for pool in pools for row in _bases(pool)]


def _bases(pool: Pool) -> Iterator[command.Row]:
    ids = pool.directory.ids(names.BASE_PREFIX)
    for name, image_id in sorted(ids.items()):
        if names.is_draft(name):
            continue
        try:
            with pool.open(image_id=image_id) as opened:
                size, used = opened.size_bytes(), opened.used_bytes()
                created = opened.layout().created_at
        except errors.ImageNotFound:
            continue  # removed meanwhile, because nothing had used it
        found = pool.headers.metadata(image_id)
        # Glance's id, or what Nova calls a disk that it generates.
        source = found.get(f"{metadata.PREFIX}image")
        last = found.get(metadata.LAST_USED, "")
        used_at = None
        if last.isdecimal():
            used_at = datetime.datetime.fromtimestamp(int(last), datetime.UTC)
        yield (
            str(pool),
            name,
            columns.Text(source or names.base_source(name)),
            columns.Text(found.get(f"{metadata.PREFIX}image_format")),
            columns.Size(size),
            columns.Size(used),
            len(pool.headers.clone_ids(image_id)),
            columns.Time(used_at),
            columns.Time(created),
        )


class Children(command.Lister):
    """List all clones of an image of Glance, in all pools.

    This includes clones of clones, and clones in the trash. Glance cannot
    delete the image while there is any clone of the image itself. A base is a
    copy of the image: its clones are listed too, but Glance need not wait for
    them.
    """

    in_table = ("Name", "Kind", "Level", "Parent", "Trash")
    need_sort_by_cliff = False  # Each clone is followed by its own clones.

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "image",
            metavar="IMAGE",
            help="the image's id in Glance, or [POOL/]NAME of an RBD image",
        )

    def take_action(self, parsed_args: argparse.Namespace) -> command.Table:
        titles = ("Name", "Id", "Kind", "Instance", "Level", "Parent", "Trash")
        rows = [
            _row(clone)
            for root in self.roots(parsed_args.image)
            for clone in children.below(root)
        ]
        if not rows:
            self.say("the image has no clones")
        return titles, rows


def _row(clone: children.Clone) -> command.Row:
    image = clone.image
    return (
        str(image.path),
        image.image_id,
        names.kind(image.name),
        columns.Text(columns.instance_of(image.name or "")),
        clone.level,
        columns.Parent(clone.parent.path),
        columns.Flag(image.trashed),
    )
