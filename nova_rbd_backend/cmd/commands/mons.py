# SPDX-License-Identifier: Apache-2.0

"""nova-rbd mons: domains whose XML names monitors that are gone."""

import argparse
import dataclasses
import enum
import importlib
import ipaddress
from collections.abc import Iterable, Iterator
from typing import Any

from nova_rbd_backend import errors, names
from nova_rbd_backend.ceph.monitors import MonAddress
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.cmd import columns, command
from nova_rbd_backend.domains import connection as connection_
from nova_rbd_backend.domains.stored import RbdDisk, Stored


class XmlState(enum.StrEnum):
    """What the next start of a domain will meet."""

    CURRENT = "current"
    OUTDATED = "outdated"  # a monitor that it names is there
    UNUSABLE = "unusable"  # none is: it will not start


@dataclasses.dataclass(frozen=True)
class _Finding:
    """What one XML of a domain says of the monitors.

    :ivar gone: named, and not in the cluster's monmap
    :ivar missing: in the monmap, and not named
    """

    stored: "Stored"
    targets: tuple[str, ...]
    gone: tuple[str, ...]
    missing: tuple[str, ...]
    state: XmlState


class Mons(command.Lister):
    """List domains of this host that name monitors which are gone.

    Or lack some that are there. Only of disks of the instance itself that lie
    in our cluster: what the XML says of Cinder's volumes is Nova's to mend.
    A guest that runs is not touched, and needs the new XML at its next start
    only.
    """

    in_table = ("Domain", "Running", "Kept in", "XmlState", "Gone", "Missing")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add where to look, and what to do."""
        parser = super().get_parser(prog_name)
        command.add_pool(parser, "the pool of the disks")
        parser.add_argument(
            "--all",
            action="store_true",
            help="list also those that name the monitors as they are",
        )
        parser.add_argument(
            "--mend",
            action="store_true",
            help="let them name the monitors as they are, from their next "
            "start on",
        )
        command.add_dry_run(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> command.Table:
        """Return a row for each XML that libvirt keeps."""
        titles = (
            *("Domain", "Instance", "Running", "Kept in"),
            *("XmlState", "Gone", "Missing", "Reason"),
        )
        domains = _door()
        rows = []
        conf = self.program.configuration()
        user = "one who may use it, as that of nova-compute"
        with connection_.connected(conf, user) as connection:
            found = list(self._findings(parsed_args, domains, connection))
            for each in found:
                if parsed_args.all or each.state is not XmlState.CURRENT:
                    rows.append(self._row(parsed_args, each))
        self._tell(found)
        return self.fitting(parsed_args, (titles, rows))

    def _findings(
        self, arguments: argparse.Namespace, domains: Any, connection: Any
    ) -> Iterator[_Finding]:
        pools = {str(pool): pool for pool in self.pools(arguments.pool)}
        monitors = self.cluster.all_mon_addresses()
        for stored in domains.stored(connection):
            disks = [
                disk
                for disk in stored.disks
                if disk.monitors and self._is_ours(pools, stored.uuid, disk)
            ]
            if disks:
                yield _finding(stored, disks, monitors)

    def _is_ours(
        self, pools: dict[str, Pool], uuid: str, disk: "RbdDisk"
    ) -> bool:
        """Whether it is the instance's own, and in our cluster.

        An XML does not say which cluster it means: the image has to be there.
        """
        where, _, image = disk.image.rpartition("/")
        whose = names.DiskName.parse(image)
        if whose is None or whose.instance_uuid != uuid:
            return False
        if where not in pools or disk.user != self.settings.user:
            return False
        return pools[where].directory.exists(image)

    def _row(
        self, arguments: argparse.Namespace, found: _Finding
    ) -> command.Row:
        state, reason = str(found.state), None
        if arguments.mend and found.state is not XmlState.CURRENT:
            state = "would be mended"
            if not arguments.dry_run:
                state, reason = self._mend(found)
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

    def _mend(self, found: _Finding) -> tuple[str, str | None]:
        monitors = [
            (each.host, str(each.port))
            for each in self.cluster.mon_addresses()
        ]
        try:
            found.stored.set_monitors(found.targets, monitors)
        except errors.LibvirtFault as error:
            self.status = 1
            return str(found.state), str(error)
        return "mended", None

    def _tell(self, found: list[_Finding]) -> None:
        wrong = [each for each in found if each.state is not XmlState.CURRENT]
        if not wrong:
            self.say(f"all XMLs, {len(found)}, name the monitors as they are")
        elif any(each.stored.running for each in wrong):
            self.say(
                "guests that run go on: they have the monitors from their "
                "own connection, and read the XML at their next start"
            )


def _door() -> Any:
    try:
        return importlib.import_module("nova_rbd_backend.domains.stored")
    except ImportError as error:
        raise errors.ConfigError(
            f"{error}: install it for the Python of nova-rbd (Debian, "
            "Ubuntu: python3-libvirt, python3-lxml)"
        ) from error


def _finding(
    stored: "Stored",
    disks: Iterable["RbdDisk"],
    monitors: Iterable[tuple[MonAddress, ...]],
) -> _Finding:
    """Compare what the disks name with what there is.

    Any address of a monitor will do: librados asks it for all the others.
    """
    each_mon = [tuple(map(_of_mon, mon)) for mon in monitors]
    current = set().union(*each_mon)
    gone: set[str] = set()
    missing: set[str] = set()
    targets = []
    usable = True
    for disk in disks:
        named = {_canonical(host, port) for host, port in disk.monitors}
        lacking = [mon[0] for mon in each_mon if named.isdisjoint(mon)]
        if named - current or lacking:
            targets.append(disk.target)
        gone |= named - current
        missing.update(lacking)
        usable = usable and bool(named & current)
    state = XmlState.OUTDATED if targets else XmlState.CURRENT
    return _Finding(
        stored,
        tuple(targets),
        tuple(sorted(gone)),
        tuple(sorted(missing)),
        state if usable else XmlState.UNUSABLE,
    )


def _of_mon(address: MonAddress) -> str:
    return _canonical(address.host, str(address.port))


def _canonical(host: str, port: str) -> str:
    """Host and port, where an IPv6 address can be written in many ways."""
    bare = host.removeprefix("[").removesuffix("]")
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return f"{bare}:{port}"
    return f"[{address}]:{port}" if address.version == 6 else f"{bare}:{port}"
