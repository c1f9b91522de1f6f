# SPDX-License-Identifier: Apache-2.0

"""No disk with two writers: who has each disk open, while the run goes on."""

import contextlib
import threading
import time
from collections.abc import Iterator

import rados
import rbd

from nova_rbd_backend import names
from tests.soak.journey import Journey
from tests.soak.requests_of_users import Refused, User, task
from tests.testbed.ceph import pools, rbd_view
from tests.testbed.process import TestbedError
from tests.testbed.whole import Testbed

POOL = "vms"
POLL_SECONDS = 5.0
# Longer than a dead client's watch, and than the end of a live migration.
MOST_SECONDS = 60.0


class Writers:
    """Looks at the clients of each disk that are not blocklisted.

    During a live migration there are two. Two that stay, although Nova does
    nothing to the server, are two guests.
    """

    def __init__(self, testbed: Testbed, user: User, journey: Journey):
        self._testbed = testbed
        self._user = user
        self._journey = journey
        self._since: dict[tuple[str, frozenset[str]], float] = {}

    def run(self, end: threading.Event) -> None:
        while not end.wait(POLL_SECONDS):
            try:
                self._look()
            except (rados.Error, rbd.Error, TestbedError, Refused) as error:
                self._journey.note("clients of the disks unknown:", error)

    def _look(self) -> None:
        busy = {
            server_id
            for server_id, server in self._user.servers().items()
            if task(server) is not None
        }
        with self._testbed.cluster.admin() as admin:
            several = dict(with_several_clients(admin))
        now = time.monotonic()
        found = {
            (name, clients): self._since.get((name, clients), now)
            for name, clients in several.items()
            if _instance(name) not in busy
        }
        self._since = found
        for (name, clients), since in found.items():
            if now - since > MOST_SECONDS:
                told = f"{name} has {len(clients)} clients: {sorted(clients)}"
                self._journey.violation(told)


def _instance(name: str) -> str:
    disk = names.DiskName.parse(name)
    return disk.instance_uuid if disk else ""


def with_several_clients(
    admin: rados.Rados,
) -> Iterator[tuple[str, frozenset[str]]]:
    blocked = set(pools.command(admin, "osd dump")["blocklist"])
    with admin.open_ioctx(POOL) as ioctx:
        for name in rbd.RBD().list(ioctx):
            with (
                contextlib.suppress(rbd.ImageNotFound),
                rbd_view.opened(ioctx, name) as image,
            ):
                clients = {each["addr"] for each in image.watchers_list()}
                if len(clients - blocked) > 1:
                    yield name, frozenset(clients - blocked)
