# SPDX-License-Identifier: Apache-2.0

"""nova-rbd orphans: list disks that no instance owns, or quarantine them."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from nova_rbd_backend import errors, metadata
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.cmd import columns, command, durations, progress
from nova_rbd_backend.storage.survey import orphans
from nova_rbd_backend.storage.survey.orphans import OrphanState, Unowned

if TYPE_CHECKING:
    from nova_rbd_backend.cmd.clouds import Cloud

T = TypeVar("T")

#: The disks of an instance that no cloud knows: their pool, and name -> id.
_Disks = tuple[Pool, Mapping[str, str]]


class Orphans(command.Lister):
    """List disks that no instance owns, or move them to the trash.

    Nova's API is asked for each instance by its UUID. If several clouds or
    regions use one pool, a disk is an orphan only if none of them knows its
    instance. No disk is an orphan while one of them cannot be asked.
    """

    options = ("--pool", "--dry-run")
    in_table = ("Name", "Size", "Last used", "State", "Reason")
    clouds: "list[Cloud]"
    unclear: str | None = None

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
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
            help="ask only this region of each cloud; may be given several "
            "times; by default all regions that have a Nova",
        )
        parser.add_argument(
            "--older-than",
            type=durations.seconds,
            default="1d",
            metavar="TIME",
            help="leave alone what was made, written or read within this "
            "time, such as 12h or 7d; by default 1d",
        )
        parser.add_argument(
            "--quarantine",
            action="store_true",
            help="move the orphans to the pool's trash, from where 'trash "
            "restore' gives them back",
        )
        parser.add_argument(
            "--keep",
            type=durations.seconds,
            default="14d",
            metavar="TIME",
            help="how long the trash keeps them; by default 14d, at least 1d",
        )

    def take_action(self, parsed_args: argparse.Namespace) -> command.Table:
        if parsed_args.keep < durations.DAY_SECONDS:
            raise errors.ConfigError(
                "--keep is below 1d: what is in the trash for a shorter time "
                "may be gone before somebody misses it"
            )
        titles = (
            *("Pool", "Name", "Id", "Instance", "Project", "Size"),
            *("Created", "Last used", "State", "Reason"),
        )
        self.clouds = _connect(parsed_args)
        unknown = self._unknown(parsed_args)
        rows = [
            self._row(parsed_args, found)
            for pool, disks in self._each("look at their disks", unknown)
            for found in orphans.judge(pool, disks, parsed_args.older_than)
        ]
        if parsed_args.quarantine and parsed_args.dry_run:
            self.say("nothing was changed")
        return titles, rows

    def _each(self, what: str, instances: Sequence[T]) -> Iterator[T]:
        """Yield the instances, and show how many are done."""
        with progress.Progress(self.app.stderr, what, "instances") as told:
            for done, each in enumerate(instances):
                told(done, len(instances))
                yield each

    def _unknown(self, arguments: argparse.Namespace) -> list[_Disks]:
        """Return the disks of the instances that no cloud knows."""
        # The pools before the clouds, so that an instance that is made
        # meanwhile is known.
        pools = self.disk_pools(arguments.pool)
        contents = [(pool, self._disks(pool)) for pool in pools]
        listed: set[str] = set()
        for cloud in self.clouds:
            instances = cloud.instances()
            self.say(f"{cloud.name}: {len(instances)} instances")
            listed |= instances
        unknown: list[_Disks] = []
        for pool, disks in contents:
            unlisted = sorted(disks.keys() - listed)
            unowned = [
                (pool, disks[uuid])
                for uuid in self._each("ask Nova", unlisted)
                if self._owner(uuid) is None
            ]
            if unowned and len(unowned) == len(disks):
                self._doubt(pool, arguments.quarantine)
            unknown += unowned
        return unknown

    def _disks(self, pool: Pool) -> Mapping[str, Mapping[str, str]]:
        """Return the disks in a pool: instance -> name -> id."""
        content = orphans.content(pool)
        if content.strangers:
            self.say(
                f"{pool}: images whose names are not Nova's are left alone: "
                f"{content.strangers}"
            )
        return content.disks

    def _doubt(self, pool: Pool, move: bool) -> None:
        """Say that no disk is owned; refuse if the disks would be moved."""
        asked = ", ".join(cloud.name for cloud in self.clouds)
        text = f"no disk in {pool} is of an instance of {asked}"
        if move:
            raise errors.NovaUnclear(
                f"{text}, so these are taken for the wrong clouds, and "
                "nothing is moved: name all that use the pool (--os-cloud, "
                "--os-region-name), or move them with 'rbd trash mv'"
            )
        self.say(f"{text}: are these all the clouds that use it?")

    def _row(
        self, arguments: argparse.Namespace, found: Unowned
    ) -> command.Row:
        state, reason = str(found.state), found.reason
        if arguments.quarantine and found.state is OrphanState.ORPHAN:
            if arguments.dry_run:
                state = "would be quarantined"
            elif reason := self._quarantine(found, arguments.keep):
                self.status, state = 1, "kept"
            else:
                state = "quarantined"
        disk = found.disk
        return (
            str(disk.pool),
            disk.name,
            disk.image_id,
            columns.instance_of(disk.name),
            columns.Text(disk.metadata.get(f"{metadata.PREFIX}project")),
            columns.Size(disk.size_bytes),
            columns.Time(found.created_at),
            columns.Time(found.used_at),
            state,
            columns.Text(reason),
        )

    def _quarantine(self, found: Unowned, keep_seconds: int) -> str | None:
        """Move a disk to the trash if its instance is still unknown.

        :returns: why the disk is kept; None: it is moved
        """
        # Once a cloud has failed, each disk would wait for it as long.
        if self.unclear is None:
            disk = found.disk
            uuid = columns.instance_of(disk.name)
            assert uuid is not None
            try:
                owner = self._owner(uuid)
                if owner is not None:
                    return f"{owner} has its instance now"
                orphans.quarantine(
                    disk.pool, disk.name, disk.image_id, keep_seconds
                )
            except errors.NovaUnclear as error:
                self.unclear = str(error)
            except errors.StorageError as error:
                return str(error)
        return self.unclear

    def _owner(self, uuid: str) -> str | None:
        """Return the name of the first cloud that has the instance, if any."""
        owners = (cloud.name for cloud in self.clouds if cloud.knows(uuid))
        return next(owners, None)


def _connect(arguments: argparse.Namespace) -> "list[Cloud]":
    # Not at the top: nova-rbd loads all of its commands when it starts, also
    # on hosts without openstacksdk.
    try:
        from nova_rbd_backend.cmd import clouds
    except ImportError as error:
        raise errors.ConfigError(
            f"{error}: install openstacksdk, which asks Nova's API"
        ) from error
    return clouds.connect(arguments.os_cloud, arguments.os_region_name)
