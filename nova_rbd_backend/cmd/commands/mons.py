# SPDX-License-Identifier: Apache-2.0

"""nova-rbd mons: domains whose XML names monitors that no longer exist."""

import argparse
import contextlib
import dataclasses
import enum
import ipaddress
from collections.abc import Iterable, Iterator
from typing import Any

from nova_rbd_backend import errors, names
from nova_rbd_backend.ceph.monitors import MonAddress
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.cmd import columns, command
from nova_rbd_backend.domains import connection as connection_
from nova_rbd_backend.domains.stored import RbdDisk, StoredXml, stored_xmls


class XmlState(enum.StrEnum):
    """What the next start of a domain will meet."""

    CURRENT = "current"
    OUTDATED = "outdated"  # At least one of the named monitors exists.
    UNUSABLE = "unusable"  # None exists: the domain will not start.


@dataclasses.dataclass(frozen=True)
class _Finding:
    """What one XML of a domain says of the monitors.

    :ivar targets: the disks that do not name the monitors as they are
    :ivar gone: monitors that are named, but are not in the cluster's monmap
    :ivar missing: monitors that are in the monmap, but are not named
    """

    stored: StoredXml
    targets: tuple[str, ...]
    gone: tuple[str, ...]
    missing: tuple[str, ...]
    state: XmlState


class Mons(command.Lister):
    """List domains of this host that name monitors which no longer exist.

    Domains that lack some of the monitors are listed too. Only the instances'
    own disks in this cluster count: what the XML says of Cinder's volumes is
    left to Nova. A running guest is not touched. It needs the new XML only at
    its next start.
    """

    options = ("--pool", "--dry-run")
    in_table = ("Domain", "Running", "Kept in", "State", "Gone", "Missing")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--all",
            action="store_true",
            help="also list the domains that name the monitors as they are",
        )
        parser.add_argument(
            "--mend",
            action="store_true",
            help="let the domains name the monitors as they are, from their "
            "next start on",
        )

    def take_action(self, parsed_args: argparse.Namespace) -> command.Table:
        titles = (
            *("Domain", "Instance", "Running", "Kept in"),
            *("State", "Gone", "Missing", "Reason"),
        )
        uri = self.conf.libvirt.connection_uri
        user = "a user who may use it, such as that of nova-compute"
        with connection_.connected(uri, user) as connection:
            found = list(self._findings(parsed_args, connection))
            wrong = [f for f in found if f.state is not XmlState.CURRENT]
            shown = found if parsed_args.all else wrong
            rows = [self._row(parsed_args, each) for each in shown]
        if not wrong:
            self.say(f"all XMLs, {len(found)}, name the monitors as they are")
        elif any(each.stored.running for each in wrong):
            self.say(
                "guests that run go on: they have the monitors from their "
                "own connection, and read the XML at their next start"
            )
        return titles, rows

    def _findings(
        self, arguments: argparse.Namespace, connection: Any
    ) -> Iterator[_Finding]:
        pools = {str(pool): pool for pool in self.disk_pools(arguments.pool)}
        monitors = self.store.cluster.all_mon_addresses()
        for stored in stored_xmls(connection):
            disks = [
                disk
                for disk in stored.disks
                if disk.monitors and self._is_ours(pools, stored.uuid, disk)
            ]
            if disks:
                yield _finding(stored, disks, monitors)

    def _is_ours(
        self, pools: dict[str, Pool], uuid: str, disk: RbdDisk
    ) -> bool:
        """Return whether a disk is the instance's own, and in this cluster.

        An XML does not say which cluster it means, so the image has to exist.
        """
        where, _, image = disk.image.rpartition("/")
        whose = names.DiskName.parse(image)
        return (
            whose is not None
            and whose.instance_uuid == uuid
            and where in pools
            and disk.user == self.settings.user
            and pools[where].directory.exists(image)
        )

    def _row(
        self, arguments: argparse.Namespace, found: _Finding
    ) -> command.Row:
        state = str(found.state)
        reason: str | None = None
        if arguments.mend and found.state is not XmlState.CURRENT:
            if arguments.dry_run:
                state = "would be mended"
            else:
                try:
                    found.stored.set_monitors(found.targets, self.monitors)
                    state = "mended"
                except errors.LibvirtFault as error:
                    self.status, reason = 1, str(error)
        return (
            found.stored.name,
            found.stored.uuid,
            columns.Flag(found.stored.running),
            str(found.stored.where),
            state,
            columns.Lines(found.gone),
            columns.Lines(found.missing),
            columns.Text(reason),
        )


def _finding(
    stored: StoredXml,
    disks: Iterable[RbdDisk],
    monitors: Iterable[tuple[MonAddress, ...]],
) -> _Finding:
    """Compare the monitors that the disks name with those of the cluster.

    One address of a monitor is enough: librados asks it for all the others.
    """
    each_mon = [
        [_canonical(each.host, str(each.port)) for each in addresses]
        for addresses in monitors
    ]
    current = set().union(*each_mon)
    gone: set[str] = set()
    missing: set[str] = set()
    targets = []
    usable = True
    for disk in disks:
        named = {_canonical(host, port) for host, port in disk.monitors}
        lacking = [mon[0] for mon in each_mon if named.isdisjoint(mon)]
        gone |= named - current
        missing.update(lacking)
        if named - current or lacking:
            targets.append(disk.target)
        usable = usable and not named.isdisjoint(current)
    state = XmlState.OUTDATED if targets else XmlState.CURRENT
    return _Finding(
        stored,
        tuple(targets),
        tuple(sorted(gone)),
        tuple(sorted(missing)),
        state if usable else XmlState.UNUSABLE,
    )


def _canonical(host: str, port: str) -> str:
    """Return host and port in one spelling; an IPv6 address has many."""
    bare = host.removeprefix("[").removesuffix("]")
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(bare)
        bare = f"[{address}]" if address.version == 6 else bare
    return f"{bare}:{port}"
