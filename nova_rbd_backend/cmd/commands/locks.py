# SPDX-License-Identifier: Apache-2.0

"""nova-rbd locks, unlock: the clients of disks, and how to free a disk."""

import argparse
import datetime
from collections.abc import Iterable

from nova_rbd_backend import errors, names, notices
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.cmd import columns, command
from nova_rbd_backend.storage import fencing
from nova_rbd_backend.storage.survey import holders


class Locks(command.Lister):
    """List the clients that have images open for writing, or died with them.

    Each client is asked for a sign of life. A client that gives none twice is
    dead.
    """

    options = ("--pool", "--instance")
    in_table = ("Name", "Client", "Address", "Lock owner", "State")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--dead",
            action="store_true",
            help="only the disks that 'unlock' would free",
        )

    def take_action(self, parsed_args: argparse.Namespace) -> command.Table:
        titles = ("Pool", "Name", "Client", "Address", "Lock owner", "State")
        instance = parsed_args.instance
        prefix = names.DiskName.prefix(instance) if instance else ""
        rows = [
            (
                str(pool),
                holder.image,
                f"client.{holder.client_id}",
                holder.address,
                columns.Flag(holder.owns_lock),
                str(holder.state),
            )
            for pool in self.image_pools(parsed_args.pool)
            for holder in holders.holders_of(pool, pool.directory.ids(prefix))
            if not parsed_args.dead or holder.state is holders.Liveness.DEAD
        ]
        return titles, rows


class Unlock(command.Lister):
    """Free a disk of the client that died with it.

    Puts the client on Ceph's blocklist, so that it can never write again, and
    breaks its lock. A client that is alive is never touched: then nothing is
    done, and the exit status is 1. Nova does the same by itself before it
    starts a guest.
    """

    options = ("--pool", "--dry-run")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "disks",
            metavar="DISK",
            nargs="+",
            help="[POOL/]NAME of the RBD image, as 'locks' shows it",
        )

    def take_action(self, parsed_args: argparse.Namespace) -> command.Table:
        dry_run = parsed_args.dry_run
        found = [self.find(d, parsed_args.pool) for d in parsed_args.disks]
        fenced: list[notices.Fenced] = []
        for disk in found:
            fenced += _planned(*disk) if dry_run else _free(*disk)
        if not fenced:
            self.say("no dead client has it")
        elif dry_run:
            self.say("would be fenced; nothing was changed")
        now = datetime.datetime.now(datetime.UTC)
        rows = []
        for fact in fenced:
            until = now + datetime.timedelta(seconds=fact.blocklist_seconds)
            rows.append(
                (
                    fact.pool,
                    fact.image,
                    f"client.{fact.client_id}",
                    fact.address,
                    columns.Flag(fact.lock_broken and not dry_run),
                    columns.Time(None if dry_run else until),
                )
            )
        titles = ("Pool", "Name", "Client", "Address", "Lock broken")
        return (*titles, "Blocklisted until"), rows


def _dead_guests(pool: Pool, name: str, image_id: str) -> list[holders.Holder]:
    """Return the clients that have a disk, if all of them are dead.

    rbd-mirror is not among them, as before the start of a guest.

    :raises DiskBusy: a client is alive, or may be
    """
    held = [
        each
        for each in holders.holders_of(pool, {name: image_id})
        if each.state is not holders.Liveness.MIRROR
    ]
    living = [each for each in held if each.state is not holders.Liveness.DEAD]
    fault: type[errors.DiskBusy] = errors.DiskInUse
    reason = "its client is alive"
    if any(each.state is holders.Liveness.UNCLEAR for each in living):
        fault = errors.DiskBusy
        reason = (
            "some of its clients answer and some do not; a dead client is "
            "known 30 s after its death"
        )
    if living:
        raise fault(
            reason,
            watchers=[each.address for each in living],
            operation="unlock",
            pool=str(pool),
            image=name,
        )
    return held


def _planned(pool: Pool, name: str, image_id: str) -> list[notices.Fenced]:
    """Return what ``_free`` would do."""
    return [
        notices.Fenced(
            str(pool),
            name,
            holder.client_id,
            holder.address,
            holder.owns_lock,
            pool.cluster.settings.blocklist_seconds,
        )
        for holder in _dead_guests(pool, name, image_id)
    ]


def _free(pool: Pool, name: str, image_id: str) -> Iterable[notices.Fenced]:
    """Fence dead clients until every client of the disk is fenced.

    :raises DiskBusy: a client is alive, or may be
    """
    fenced: dict[str, notices.Fenced] = {}
    # More than once, because a watch may lapse while its client is asked.
    # Then the client's lock is left.
    while any(
        each.address not in fenced
        for each in _dead_guests(pool, name, image_id)
    ):
        with notices.collected() as facts:
            fencing.fence(pool, {name: image_id})
        for fact in facts:
            if isinstance(fact, notices.Fenced):
                # Of a second fact, the lock was broken by the first.
                fenced.setdefault(fact.address, fact)
    return fenced.values()
