# SPDX-License-Identifier: Apache-2.0

"""nova-rbd locks, unlock: who holds which disk, and free it of the dead."""

import argparse
import datetime
from collections.abc import Iterable, Iterator

from nova_rbd_backend import errors, names, notices
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.cmd import columns, command
from nova_rbd_backend.storage import fencing
from nova_rbd_backend.storage.survey import holders


class Locks(command.Lister):
    """List who has images open for writing, or died with them.

    Each is asked for a sign of life: who gives none, twice, is dead.
    """

    in_table = ("Name", "Client", "Address", "Lock owner", "State")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add where to look, and for what."""
        parser = super().get_parser(prog_name)
        command.add_pool(parser, "the pools of disks and of snapshots")
        command.add_instance(parser)
        parser.add_argument(
            "--dead", action="store_true", help="only what 'unlock' would free"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> command.Table:
        """Return a row for each client of each image."""
        titles = ("Pool", "Name", "Client", "Address", "Lock owner", "State")
        rows = [
            (
                str(pool),
                holder.image,
                f"client.{holder.client_id}",
                holder.address,
                columns.Flag(holder.owns_lock),
                str(holder.state),
            )
            for pool in self.own_pools(parsed_args.pool)
            for holder in _holders(pool, parsed_args.instance)
            if not parsed_args.dead or holder.state is holders.Liveness.DEAD
        ]
        return self.fitting(parsed_args, (titles, rows))


def _holders(pool: Pool, instance_uuid: str | None) -> list[holders.Holder]:
    prefix = names.DiskName.prefix(instance_uuid) if instance_uuid else ""
    return holders.holders_of(pool, pool.directory.ids(prefix))


class Unlock(command.Lister):
    """Free a disk of the client that died with it.

    The client is put on Ceph's blocklist, so that it can never write again,
    and its lock is broken. One that is alive is never touched: then nothing
    is done, and the exit status is 1. Nova does the same by itself before it
    starts a guest.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add which."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "disks",
            metavar="DISK",
            nargs="+",
            help="the RBD image's name, as 'locks' shows it, or POOL/NAME",
        )
        command.add_pool(parser, "the pools of disks and of snapshots")
        command.add_dry_run(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> command.Table:
        """Free them; return a row for each client that is fenced."""
        titles = (
            *("Pool", "Name", "Client", "Address", "Lock broken"),
            "Blocklisted until",
        )
        found = [
            (disk.rpartition("/")[2], *self.find(disk, parsed_args.pool))
            for disk in parsed_args.disks
        ]
        fenced: list[notices.Fenced] = []
        for name, pool, image_id in found:
            held = _guests(pool, name, image_id)
            _refuse_living(pool, name, held)
            if parsed_args.dry_run:
                fenced += [_planned(pool, holder) for holder in held]
            else:
                fenced += _free(pool, name, image_id, held)
        if not fenced:
            self.say("no dead client has it")
        elif parsed_args.dry_run:
            self.say("would be fenced; nothing was changed")
        return titles, list(_rows(fenced, parsed_args.dry_run))


def _guests(pool: Pool, name: str, image_id: str) -> list[holders.Holder]:
    """Who has it open, but for rbd-mirror: as before a guest is started."""
    return [
        each
        for each in holders.holders_of(pool, {name: image_id})
        if each.state is not holders.Liveness.MIRROR
    ]


def _refuse_living(
    pool: Pool, name: str, held: Iterable[holders.Holder]
) -> None:
    state = holders.Liveness
    living = [each for each in held if each.state is not state.DEAD]
    watchers = [each.address for each in living]
    if any(each.state is state.UNCLEAR for each in living):
        raise errors.DiskBusy(
            "some of its clients answer and some do not; 30 s after their "
            "death the dead ones are known",
            watchers=watchers,
            operation="unlock",
            pool=str(pool),
            image=name,
        )
    if living:
        raise errors.DiskInUse(
            "its client is alive",
            watchers=watchers,
            operation="unlock",
            pool=str(pool),
            image=name,
        )


def _free(
    pool: Pool, name: str, image_id: str, held: Iterable[holders.Holder]
) -> list[notices.Fenced]:
    """Fence dead clients until none is left that is not fenced.

    :raises DiskBusy: a client is alive, or may be
    """
    fenced: dict[str, notices.Fenced] = {}
    while any(each.address not in fenced for each in held):
        with notices.collected() as facts:
            fencing.fence(pool, {name: image_id})
        for fact in facts:
            if isinstance(fact, notices.Fenced):
                fenced[fact.address] = fact
        # A watch may lapse while its client is asked: a lock is left then.
        held = _guests(pool, name, image_id)
        _refuse_living(pool, name, held)
    return list(fenced.values())


def _planned(pool: Pool, holder: holders.Holder) -> notices.Fenced:
    """Return what fencing the holder would do."""
    return notices.Fenced(
        str(pool),
        holder.image,
        holder.client_id,
        holder.address,
        holder.owns_lock,
        pool.cluster.settings.blocklist_seconds,
    )


def _rows(
    fenced: Iterable[notices.Fenced], dry_run: bool
) -> Iterator[command.Row]:
    now = datetime.datetime.now(datetime.UTC)
    for fact in fenced:
        until = now + datetime.timedelta(seconds=fact.blocklist_seconds)
        yield (
            fact.pool,
            fact.image,
            f"client.{fact.client_id}",
            fact.address,
            columns.Flag(fact.lock_broken and not dry_run),
            columns.Time(None if dry_run else until),
        )
