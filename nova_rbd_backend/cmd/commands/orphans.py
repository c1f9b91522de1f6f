# SPDX-License-Identifier: Apache-2.0

"""nova-rbd orphans: disks that no instance owns, and into the trash."""

import argparse
import dataclasses
import importlib
from collections.abc import Iterator, Mapping

from nova_rbd_backend import errors, metadata, names
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.cmd import columns, command, durations, progress
from nova_rbd_backend.cmd.clouds import Cloud
from nova_rbd_backend.storage.survey import orphans
from nova_rbd_backend.storage.survey.orphans import OrphanState, Unowned

_SHORTEST_KEEP_SECONDS = durations.DAY_SECONDS


@dataclasses.dataclass(frozen=True)
class _Instance:
    """One that no cloud knows; images: name -> id."""

    pool: Pool
    uuid: str
    images: Mapping[str, str]


class Orphans(command.Lister):
    """List disks that no instance owns, or move them to the trash.

    Each instance is asked for at Nova's API by its UUID. With several clouds
    or regions on one pool a disk is an orphan only where none of them knows
    its instance, and nothing is where one of them cannot be asked.
    """

    in_table = ("Name", "Size", "Last used", "State", "Reason")
    unclear: str | None = None

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add where to look, whom to ask, and what to do."""
        parser = super().get_parser(prog_name)
        command.add_pool(parser, "the pool of the disks")
        _add_clouds(parser)
        parser.add_argument(
            "--older-than",
            type=durations.seconds,
            default="1d",
            metavar="TIME",
            help="leave alone what was made, written or read since then: "
            "12h, 7d; by default 1d",
        )
        parser.add_argument(
            "--quarantine",
            action="store_true",
            help="move them to the pool's trash, from where 'trash restore' "
            "gives them back",
        )
        parser.add_argument(
            "--keep",
            type=durations.seconds,
            default="14d",
            metavar="TIME",
            help="how long the trash keeps them; by default 14d, at least 1d",
        )
        command.add_dry_run(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> command.Table:
        """Return a row for each disk that no instance owns."""
        if parsed_args.keep < _SHORTEST_KEEP_SECONDS:
            raise errors.ConfigError(
                "--keep is below 1d: what is in the trash for a shorter time "
                "may be gone before somebody misses it"
            )
        titles = (
            *("Pool", "Name", "Id", "Instance", "Project", "Size"),
            *("Created", "Last used", "State", "Reason"),
        )
        clouds = _connect(parsed_args)
        rows: list[command.Row] = []
        unknown = self._unknown(parsed_args, clouds)
        told = self._progress("look at their disks")
        for done, instance in enumerate(unknown):
            told(done, len(unknown))
            rows += self._rows(parsed_args, clouds, instance)
        told.end()
        if parsed_args.quarantine and parsed_args.dry_run:
            self.say("nothing was changed")
        return self.fitting(parsed_args, (titles, rows))

    def _unknown(
        self, arguments: argparse.Namespace, clouds: "list[Cloud]"
    ) -> list[_Instance]:
        """The instances with disks that no cloud knows.

        What is made while we look is known: the pools come first.
        """
        found = {
            str(pool): self._instances(pool)
            for pool in self.pools(arguments.pool)
        }
        listed = self._listed(clouds)
        unknown = []
        for pool, instances in found.items():
            unlisted = [each for each in instances if each.uuid not in listed]
            told = self._progress("ask Nova")
            nobodys = []
            for done, each in enumerate(unlisted):
                told(done, len(unlisted))
                if _owner(clouds, each.uuid) is None:
                    nobodys.append(each)
            told.end()
            if nobodys and len(nobodys) == len(instances):
                self._doubt(pool, clouds, arguments.quarantine)
            unknown += nobodys
        return unknown

    def _progress(self, what: str) -> progress.Progress:
        return progress.Progress(self.app.stderr, what, "instances")

    def _instances(self, pool: Pool) -> list[_Instance]:
        content = orphans.content(pool)
        if content.strangers:
            self.say(
                f"{pool}: images whose names are not Nova's are left alone: "
                f"{content.strangers}"
            )
        return [
            _Instance(pool, uuid, images)
            for uuid, images in sorted(content.disks.items())
        ]

    def _listed(self, clouds: "list[Cloud]") -> set[str]:
        listed: set[str] = set()
        for cloud in clouds:
            instances = cloud.instances()
            self.say(f"{cloud.name}: {len(instances)} instances")
            listed |= instances
        return listed

    def _doubt(
        self, pool: str, clouds: "list[Cloud]", quarantine: bool
    ) -> None:
        """None of the disks is owned: the wrong clouds, more likely."""
        asked = ", ".join(cloud.name for cloud in clouds)
        text = f"no disk in {pool} is of an instance of {asked}"
        if quarantine:
            raise errors.NovaUnclear(
                f"{text}, so these are taken for the wrong clouds, and "
                "nothing is moved: name all that use the pool (--os-cloud, "
                "--os-region-name), or move them with 'rbd trash mv'"
            )
        self.say(f"{text}: are these all the clouds that use it?")

    def _rows(
        self,
        arguments: argparse.Namespace,
        clouds: "list[Cloud]",
        instance: _Instance,
    ) -> Iterator[command.Row]:
        found = orphans.judge(
            instance.pool, instance.images, arguments.older_than
        )
        for each in found:
            state, reason = str(each.state), each.reason
            if arguments.quarantine and each.state is OrphanState.ORPHAN:
                state, reason = "would be quarantined", None
                if not arguments.dry_run:
                    reason = self._quarantine(clouds, each, arguments.keep)
                    state = "kept" if reason else "quarantined"
                    self.status = 1 if reason else self.status
            yield _row(instance, each, state, reason)

    def _quarantine(
        self, clouds: "list[Cloud]", found: Unowned, keep_seconds: int
    ) -> str | None:
        """Move it, if still nobody knows its instance; why it is kept."""
        if self.unclear is not None:  # the next would wait for it as long
            return self.unclear
        disk = found.disk
        whose = names.DiskName.parse(disk.name)
        assert whose is not None
        try:
            owner = _owner(clouds, whose.instance_uuid)
            if owner is not None:
                return f"{owner} has its instance now"
            orphans.quarantine(
                disk.pool, disk.name, disk.image_id, keep_seconds
            )
        except errors.NovaUnclear as error:
            self.unclear = str(error)
            return self.unclear
        except errors.StorageError as error:
            return str(error)
        return None


def _owner(clouds: "list[Cloud]", uuid: str) -> str | None:
    """The cloud that has the instance; None: none of them."""
    for cloud in clouds:
        if cloud.knows(uuid):
            return cloud.name
    return None


def _row(
    instance: _Instance, found: Unowned, state: str, reason: str | None
) -> command.Row:
    disk = found.disk
    return (
        str(instance.pool),
        disk.name,
        disk.image_id,
        instance.uuid,
        columns.Text(disk.metadata.get(f"{metadata.PREFIX}project")),
        columns.Size(disk.size_bytes),
        columns.Time(found.created_at),
        columns.Time(found.used_at),
        state,
        columns.Text(reason),
    )


def _add_clouds(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--os-cloud",
        action="append",
        metavar="CLOUD",
        help="a cloud of clouds.yaml that uses the pool; may be given "
        "several times; by default that of OS_CLOUD or of the other OS_*",
    )
    parser.add_argument(
        "--os-region-name",
        action="append",
        metavar="REGION",
        help="ask this region of each cloud alone; may be given several "
        "times; by default all that have a Nova",
    )


def _connect(arguments: argparse.Namespace) -> "list[Cloud]":
    try:
        clouds = importlib.import_module("nova_rbd_backend.cmd.clouds")
    except ImportError as error:
        raise errors.ConfigError(
            f"{error}: install openstacksdk, which asks Nova's API"
        ) from error
    found: list[Cloud] = clouds.connect(
        arguments.os_cloud, arguments.os_region_name
    )
    return found
