# SPDX-License-Identifier: Apache-2.0

"""nova-rbd convert: an instance's local disks into Ceph, and the way back."""

import argparse
import contextlib
import os
import uuid
from collections.abc import Iterator

from nova_rbd_backend import errors
from nova_rbd_backend.cmd import columns, command, progress
from nova_rbd_backend.convert import job as jobs
from nova_rbd_backend.convert import live, offline, qemu_img, record, undo
from nova_rbd_backend.domains import connection as connection_
from nova_rbd_backend.domains import disk_xml, guest
from nova_rbd_backend.storage_classes import StorageClass


class Convert(command.Lister):
    """Bring the disks of an instance on this host into Ceph.

    From local files, qcow2 or raw, or LVM. Each is compared byte by byte
    before it is set aside; --undo goes back to it as long as the guest has
    written nothing in Ceph, --finish deletes it. Broken off or killed, run
    it again: it goes on. The nova.conf is tomorrow's, with images of type
    rbd; where nova-compute reads another today, name it by --config-file.
    """

    in_table = ("Disk", "Format", "Size", "In Ceph", "Result")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add which, and how."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "instance",
            metavar="INSTANCE",
            type=_uuid,
            help="its UUID, as 'openstack server show' has it",
        )
        what = parser.add_mutually_exclusive_group()
        what.add_argument(
            "--live",
            action="store_true",
            help="of a guest that runs, and runs on",
        )
        what.add_argument(
            "--undo",
            action="store_true",
            help="give the guest its old disks again",
        )
        what.add_argument(
            "--finish",
            action="store_true",
            help="delete the old disks: there is no way back then",
        )
        parser.add_argument(
            "--lose-changes",
            action="store_true",
            help="with --undo: although the guest has written to the disks "
            "in Ceph",
        )
        parser.add_argument(
            "--storage-class",
            metavar="CLASS",
            help="where in Ceph the disks go, and how they are made; "
            "[nova_rbd] default_storage_class unless set, or where an "
            "earlier run brought them",
        )
        command.add_dry_run(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> command.Table:
        """Do it; return a row for each disk."""
        if parsed_args.lose_changes and not parsed_args.undo:
            raise errors.ConfigError("--lose-changes goes with --undo only")
        with self._job(parsed_args) as job:
            rows = _done(job, parsed_args)
            titles = ("Disk", "Local", "Format", "Size", "In Ceph", "Result")
            table = [
                (
                    row.disk,
                    columns.Text(row.path or None),
                    columns.Text(row.format or None),
                    columns.Size(row.size_bytes or None),
                    f"{job.pool}/{job.image(row.disk)}",
                    row.result,
                )
                for row in rows
            ]
        return self.fitting(parsed_args, (titles, table))

    @contextlib.contextmanager
    def _job(self, parsed_args: argparse.Namespace) -> Iterator[jobs.Job]:
        settings = self.settings
        conf = self.program.configuration()
        instance = parsed_args.instance
        folder = os.path.join(conf.instances_path, instance)
        with (
            record.sole_run(folder),
            connection_.connected(conf, "root") as connection,
        ):
            # Not at the top: the connection tells a host without libvirt so.
            from nova_rbd_backend.checks import secret

            doubt = secret.check(connection, settings)
            if doubt:
                self.say(doubt)
            monitors = self.cluster.mon_addresses()
            place = self._class(parsed_args.storage_class, folder)
            leaves = parsed_args.undo or parsed_args.finish
            if not (leaves or parsed_args.dry_run):
                self.store.add_pool(place)
            yield jobs.Job(
                instance,
                folder,
                conf.instances_path,
                self.store.of(place),
                place.name,
                guest.find(connection, instance),
                disk_xml.Access(
                    place.pool,
                    tuple((mon.host, str(mon.port)) for mon in monitors),
                    settings.user,
                    settings.secret_uuid,
                ),
                settings.ceph_conf,
                settings.trash_retention_seconds,
                self._tell,
                self.say,
            )

    def _class(self, asked: str | None, folder: str) -> StorageClass:
        """The one that was asked for, or that of an earlier run's pool."""
        settings = self.settings
        earlier = record.read(folder)
        if asked is not None:
            found = settings.class_named(asked)
            if found is None:
                known = ", ".join(each.name for each in settings.classes)
                raise errors.ConfigError(
                    f"--storage-class {asked}: nova.conf has no such class, "
                    f"it has {known}"
                )
            return found
        found = settings.class_of_pool(earlier.pool) if earlier else None
        return found or settings.default_class

    @contextlib.contextmanager
    def _tell(self, what: str, size: int) -> Iterator[qemu_img.Progress]:
        told = progress.Progress(self.app.stderr, what, "bytes")
        try:
            yield lambda done: told(done, size)
        finally:
            told.end()


def _done(job: jobs.Job, arguments: argparse.Namespace) -> list[jobs.Row]:
    if arguments.undo:
        return undo.undo(job, arguments.lose_changes, arguments.dry_run)
    if arguments.finish:
        return undo.finish(job, arguments.dry_run)
    _refuse_what_is_done(job, arguments.live)
    if arguments.dry_run:
        if not arguments.live:
            offline.refuse_running(job)
        plans = jobs.plan(job, job.local_disks(arguments.live))
        return [_would_be(each) for each in plans]
    return live.convert(job) if arguments.live else offline.convert(job)


def _refuse_what_is_done(job: jobs.Job, running: bool) -> None:
    """:raises ConversionRefused: there is no local disk of the instance"""
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


def _would_be(plan: jobs.Plan) -> jobs.Row:
    disk = plan.disk
    return jobs.Row(
        disk.name,
        disk.path,
        disk.format,
        plan.facts.size_bytes,
        "would be converted",
    )


def _uuid(text: str) -> str:
    return str(uuid.UUID(text))
