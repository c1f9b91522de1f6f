# SPDX-License-Identifier: Apache-2.0

"""Delete all servers and images, as a user, and see that all of it goes."""

import contextlib
import functools
import time
from collections.abc import Callable
from typing import Any

import rados
import rbd
from openstack.exceptions import SDKException

from tests.soak import remains
from tests.soak.fleet import Fleet
from tests.soak.journey import Journey
from tests.soak.requests_of_users import Refused, User, host, task
from tests.testbed.process import TestbedError, wait_for
from tests.testbed.whole import Testbed

TASK_SECONDS = 180
HARMED_TASK_SECONDS = 30
DELETE_SECONDS = 180
# What has failed in the background is tried again after up to ten minutes
# (virt.background.worker).
EMPTY_SECONDS = 660
HOSTS_SECONDS = 90


class Ending:
    """The end of a run, when nothing is broken any more."""

    def __init__(
        self, testbed: Testbed, user: User, fleet: Fleet, journey: Journey
    ):
        self._testbed = testbed
        self._user = user
        self._fleet = fleet
        self._journey = journey

    def run(self) -> None:
        self._wait_for_tasks()
        self._delete_servers()
        self._delete_snapshots()
        in_ceph = functools.partial(remains.in_ceph, self._testbed)
        for each in _within(EMPTY_SECONDS, in_ceph):
            self._journey.violation(f"left: {each}")
        on_hosts = functools.partial(remains.on_hosts, self._testbed)
        for each in _within(HOSTS_SECONDS, on_hosts):
            self._judge_on_host(each)

    def _judge_on_host(self, left: str) -> None:
        """Let Nova leave what holds no disk and runs nothing, after a fault.

        That is a folder, or a domain that is defined.
        """
        # An interrupted resize leaves folders with these names (Nova 34,
        # libvirt/driver.py, _cleanup_resize and delete_instance_files).
        server = left.split()[-1].removesuffix("_del").removesuffix("_resize")
        met = self._fleet.harmed() | self._journey.evacuated
        if " QEMU " not in left and server in met:
            self._journey.note("left:", left)
        else:
            self._journey.violation(f"left: {left}")

    def _wait_for_tasks(self) -> None:
        """Wait until Nova has ended what it does to the servers.

        A server whose task a fault has broken may keep it for ever. If that
        is a deletion, Nova ignores any other (Nova 34, compute/api.py) until
        an admin resets the server's state.
        """

        known = self._fleet.harmed()

        def busy(harmed: bool) -> list[str]:
            return [
                f"{server_id} {server['status']} {task(server)}"
                for server_id, server in self._user.servers().items()
                if task(server) is not None and (server_id in known) == harmed
            ]

        for each in _within(TASK_SECONDS, lambda: busy(harmed=False)):
            self._journey.violation(f"has still a task: {each}")
        for each in _within(HARMED_TASK_SECONDS, lambda: busy(harmed=True)):
            self._journey.note("has still a task:", each)
            reset = {"os-resetState": {"state": "error"}}
            with contextlib.suppress(Refused):  # it is gone meanwhile
                self._user.act(each.split()[0], reset)

    def _delete_servers(self) -> None:
        def left() -> list[str]:
            servers = self._user.servers()
            for server_id, server in servers.items():
                self._delete(server_id, server)
            return [
                f"{server_id} {server['status']} {task(server)} on "
                f"{host(server) or 'no host'}"
                for server_id, server in servers.items()
            ]

        for each in _within(DELETE_SECONDS, left, pause_seconds=5):
            self._journey.violation(f"can't be deleted: {each}")

    def _delete(self, server_id: str, server: dict[str, Any]) -> None:
        if task(server) == "deleting":
            return
        try:
            if server["status"] == "SOFT_DELETED":
                answer = self._user.act(server_id, {"forceDelete": None})
            else:
                path = f"/servers/{server_id}"
                answer = self._user.ask("DELETE", path)
        except Refused as error:
            self._journey.note("delete", server_id, "refused:", error)
        else:
            self._journey.note("delete", server_id, answer.request_id)

    def _delete_snapshots(self) -> None:
        def left() -> list[str]:
            found = []
            for image in self._user.glance.images():
                # As Nova marks the images that it makes of servers.
                if image.properties.get("image_type") == "snapshot":
                    found.append(image.id)
                    try:
                        self._user.glance.delete_image(image)
                    except SDKException as error:
                        self._journey.note("image", image.id, error)
            return found

        for each in _within(DELETE_SECONDS, left, pause_seconds=5):
            self._journey.violation(f"image can't be deleted: {each}")


def _within(
    seconds: float, left: Callable[[], list[str]], pause_seconds: float = 1
) -> list[str]:
    """Wait until nothing is left; return what is left after the limit.

    :raises Refused, rados.Error, rbd.Error: no answer within the limit
    """
    limit = time.monotonic() + seconds
    try:
        wait_for("nothing is left", lambda: not left(), seconds, pause_seconds)
    except TestbedError:
        return left()
    except (Refused, rados.Error, rbd.Error):
        rest = limit - time.monotonic()
        if rest < 0:
            raise
        return _within(rest, left, pause_seconds)
    return []
