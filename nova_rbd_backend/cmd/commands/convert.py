# SPDX-License-Identifier: Apache-2.0

"""nova-rbd convert: move an instance's local disks into Ceph, and back."""

import argparse
import contextlib
import os
import uuid
from collections.abc import Iterator

from nova_rbd_backend import errors
from nova_rbd_backend.ceph.transfer import Progress
from nova_rbd_backend.checks import secret
from nova_rbd_backend.cmd import columns, command, progress
from nova_rbd_backend.convert import job as jobs
from nova_rbd_backend.convert import live, offline, record, undo
from nova_rbd_backend.domains import connection as connection_
from nova_rbd_backend.domains import disk_xml, guest
from nova_rbd_backend.storage_classes import StorageClass


class Convert(command.Lister):
    """Move the disks of an instance on this host into Ceph.

    The disks are local files, qcow2 or raw, or on LVM. Each is compared with
    its copy byte by byte. --undo goes back to the old disks as long as the
    guest has not written to Ceph; --finish deletes them. If the command was
    interrupted or killed, run it again: it continues. It needs the future
    nova.conf, with images of type rbd; if nova-compute still reads another
    one, give it with --config-file.
    """

    options = ("--dry-run",)
    in_table = ("Disk", "Format", "Size", "In Ceph", "Result")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "instance",
            metavar="INSTANCE",
            type=uuid.UUID,
            help="its UUID, as 'openstack server show' has it",
        )
        what = parser.add_mutually_exclusive_group()
        for option, text in (
            ("--live", "convert the disks of a guest while it runs"),
            ("--undo", "give the guest its old disks again"),
            ("--finish", "delete the old disks; there is no way back then"),
        ):
            what.add_argument(option, action="store_true", help=text)
        parser.add_argument(
            "--lose-changes",
            action="store_true",
            help="with --undo: go back even if the guest has written to the "
            "disks in Ceph",
        )
        parser.add_argument(
            "--storage-class",
            metavar="CLASS",
            help="where in Ceph the disks go, and how they are made; by "
            "default the class that an earlier run used, or [nova_rbd] "
            "default_storage_class",
        )

    def take_action(self, parsed_args: argparse.Namespace) -> command.Table:
        if parsed_args.lose_changes and not parsed_args.undo:
            raise errors.ConfigError("--lose-changes goes with --undo only")
        titles = ("Disk", "Local", "Format", "Size", "In Ceph", "Result")
        with self._job(parsed_args) as job:
            disks, result = _done(job, parsed_args)
            rows = [
                (
                    disk.name,
                    columns.Text(disk.path or None),
                    columns.Text(disk.format or None),
                    columns.Size(disk.size_bytes or None),
                    f"{job.pool}/{job.image(disk.name)}",
                    result,
                )
                for disk in disks
            ]
        return titles, rows

    @contextlib.contextmanager
    def _job(self, parsed_args: argparse.Namespace) -> Iterator[jobs.Job]:
        settings = self.settings
        instance = str(parsed_args.instance)
        folder = os.path.join(self.conf.instances_path, instance)
        uri = self.conf.libvirt.connection_uri
        with (
            record.sole_run(folder),
            connection_.connected(uri, "root") as connection,
        ):
            if doubt := secret.check(connection, settings):
                self.app.LOG.warning(doubt)
            place = self._class(parsed_args.storage_class, folder)
            leaves = parsed_args.undo or parsed_args.finish
            if not (leaves or parsed_args.dry_run):
                self.store.add_pool(place)
            yield jobs.Job(
                instance,
                folder,
                self.conf.instances_path,
                self.store.of(place),
                place.name,
                guest.find(connection, instance),
                disk_xml.Access(
                    place.pool,
                    self.monitors,
                    settings.user,
                    settings.secret_uuid,
                ),
                settings.ceph_conf,
                settings.trash_retention_seconds,
                self._tell,
                self.say,
            )

    def _class(self, asked: str | None, folder: str) -> StorageClass:
        """Return the class asked for, or else that of an earlier run."""
        settings = self.settings
        if asked is None:
            earlier = record.read(folder)
            found = settings.class_of_pool(earlier.pool) if earlier else None
            return found or settings.default_class
        if found := settings.class_named(asked):
            return found
        known = ", ".join(each.name for each in settings.classes)
        raise errors.ConfigError(
            f"--storage-class {asked}: nova.conf has no such class, it has "
            f"{known}"
        )

    @contextlib.contextmanager
    def _tell(self, what: str, size: int) -> Iterator[Progress]:
        with progress.Progress(self.app.stderr, what, "bytes") as told:
            yield lambda done: told(done, size)


def _done(job: jobs.Job, arguments: argparse.Namespace) -> jobs.Outcome:
    if arguments.undo:
        return undo.undo(job, arguments.lose_changes, arguments.dry_run)
    if arguments.finish:
        return undo.finish(job, arguments.dry_run)
    _refuse_what_is_done(job, arguments.live)
    if not arguments.dry_run:
        return live.convert(job) if arguments.live else offline.convert(job)
    if not arguments.live:
        offline.refuse_running(job)
    plans = jobs.plan(job, job.local_disks(arguments.live))
    return [each.old_disk() for each in plans], "would be converted"


def _refuse_what_is_done(job: jobs.Job, running: bool) -> None:
    """:raises ConversionRefused: the instance has no local disk"""
    written = record.read(job.folder)
    if job.local_disks(running and job.domain.is_active()):
        return
    if written is None:
        raise errors.ConversionRefused(
            f"{job.instance} has no disk in {job.folder}, nor one on LVM: "
            "there is nothing to convert"
        )
    if written.state is record.Stage.CONVERTED:
        raise errors.ConversionRefused(
            f"{job.instance} is converted: --finish deletes the old disks, "
            "--undo goes back to them"
        )
