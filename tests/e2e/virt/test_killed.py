# SPDX-License-Identifier: Apache-2.0

"""Kill nova-compute at each change that it makes to the cluster.

After its restart nothing is left that belongs to no server, no image is half
made, and no server is stuck. (tests/functional tests what each step leaves on
the cluster itself, with storage flows alone.)
"""

import pathlib
import shutil
import time
from collections.abc import Callable, Iterator

import pytest
from openstack.compute.v2.flavor import Flavor
from openstack.compute.v2.server import Server

from tests.conftest import INTERRUPTED
from tests.e2e.conftest import (
    FIRST,
    Images,
    Tell,
    wait_until_empty,
    wait_until_gone,
)
from tests.e2e.virt import killed_compute
from tests.support import dying
from tests.support.forks import ForkServer
from tests.testbed import paths
from tests.testbed.ceph import rbd_view
from tests.testbed.guest import building as guest
from tests.testbed.host.compute_host import ComputeHost
from tests.testbed.openstack.servers import Servers
from tests.testbed.process import wait_for
from tests.testbed.whole import Testbed

pytestmark = pytest.mark.timeout(900)

# More changes than any operation makes; the loop ends at the last change.
MOST_STEPS = 40
LIMIT_SECONDS = 120
# No host waits longer than this for a dead host, whose lease ends after 30 s.
TAKE_OVER_SECONDS = 60
# A snapshot that Glance may have been told of is left alone for a minute.
SETTLE_SECONDS = 180


class Doomed:
    """The first host's nova-compute, which can be told when to die."""

    def __init__(
        self, stack: Testbed, forks: ForkServer, counter: pathlib.Path
    ) -> None:
        self._stack = stack
        self._compute = stack.compute(stack.hosts[0])
        self._forks = forks
        self._counter = counter

    def start(self) -> None:
        """Start it; return when Nova can place servers on it."""
        self._compute.forget_reports()
        with self._compute.log.open("ab") as log:
            fork = self._forks.start(
                killed_compute.nova_compute,
                *(str(self._counter), *self._compute.words()),
                stdout=log,
                stderr=log,
            )
        self._compute.process.adopt(fork.pid)
        self._compute.wait_up(self._stack.openstack.connection())

    def is_dead(self) -> bool:
        return self._compute.process.pid() is None

    def die_at(
        self,
        step: int,
        act: Callable[[], object],
        done: Callable[[], bool],
        meanwhile: Callable[[], object] = lambda: None,
    ) -> bool:
        """Act, and kill nova-compute at that change of the work that follows.

        :param act: begins the work
        :param done: tells whether the work has ended
        :param meanwhile: what to do while nova-compute is dead
        :returns: whether it was killed before it had made all its changes
        """
        self._counter.write_text(str(step))
        act()
        wait_for(
            f"nova-compute dies at change {step}, or ends its work",
            lambda: self.is_dead() or done(),
            LIMIT_SECONDS,
            # Each question costs CPU time in Nova's API.
            interval_seconds=0.25,
        )
        # The work in the background makes changes too.
        died = not self._counter.exists()
        self._counter.unlink(missing_ok=True)
        if died:
            wait_for("nova-compute is dead", self.is_dead, 10)
            meanwhile()
            self.start()
        return died


@pytest.fixture(scope="module")
def doomed(
    stack: Testbed, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Doomed]:
    """The first host's nova-compute, as long as the tests of this file run.

    Each start is a fork on the host, which saves the imports.
    """
    host, compute = stack.hosts[0], stack.compute(stack.hosts[0])
    python = str(pathlib.Path(compute.words()[0]).with_name("python"))
    path = {"PYTHONPATH": str(paths.CHECKOUT)}
    with ForkServer(
        killed_compute.__name__,
        command=lambda words: host.command([python, *words[1:]]),
        env=compute.environment(path),
    ) as forks:
        compute.stop()
        compute.configure(stack.backend, stack.overrides)
        counter = tmp_path_factory.mktemp("killed") / "changes-left"
        made = Doomed(stack, forks, counter)
        made.start()
        yield made
        if not INTERRUPTED.is_set():
            stack.restart_compute(host)


def at_each_step(work: Callable[[int], bool]) -> int:
    """Kill at one change after the other; return how many there are."""
    return dying.deaths(work, at_least=3, at_most=MOST_STEPS)


def settled(servers: Servers, server: Server) -> Server:
    """Wait until the server has no task under way; return it, in any state."""

    def idle() -> Server | None:
        now = servers.get(server)
        return now if now.task_state is None else None

    return wait_for(
        f"no task is under way for {server.id}",
        idle,
        LIMIT_SECONDS,
        interval_seconds=0.5,
    )


def test_boot(
    stack: Testbed,
    images: Images,
    servers: Servers,
    flavor: Flavor,
    doomed: Doomed,
    tell: Tell,
) -> None:
    def boot(step: int) -> bool:
        made: list[Server] = []

        def create() -> None:
            made.append(servers.create(f"boot-{step}", images.raw, flavor))

        died = doomed.die_at(
            step, create, lambda: servers.get(made[0]).status == "ACTIVE"
        )
        found = settled(servers, made[0])
        assert found.status == ("ERROR" if died else "ACTIVE")
        disk = rbd_view.images(stack.cluster, "vms").get(f"{found.id}_disk")
        assert disk is None or disk.size_bytes == 1 << 30
        servers.delete(found)
        wait_until_empty(stack)
        return died

    tell(f"boot: killed at each of {at_each_step(boot)} changes")


def test_server_that_is_deleted_while_its_host_is_down(
    stack: Testbed,
    images: Images,
    servers: Servers,
    flavor: Flavor,
    doomed: Doomed,
) -> None:
    """Nova's API deletes it in the database alone."""
    made: list[Server] = []

    def delete() -> None:
        wait_for(
            "Nova knows that the host is down",
            lambda: stack.is_down(stack.hosts[0]),
            2 * LIMIT_SECONDS,
            0.5,
        )
        servers.delete(made[0])

    # The changes are the spawn's entry, the disk's entry, the clone, its size,
    # its metadata and its name. The seventh is a part of its name, too: the
    # disk is as good as made.
    assert doomed.die_at(
        7,
        lambda: made.append(
            servers.create(
                "deleted", images.raw, flavor, availability_zone=FIRST
            )
        ),
        lambda: servers.get(made[0]).status == "ACTIVE",
        meanwhile=delete,
    )
    wait_until_empty(stack)
    log = stack.compute(stack.hosts[0]).log.read_text()
    assert f"instance {made[0].id} was deleted without its host" in log
    # Nova's periodic task would remove the folder after some minutes.
    shutil.rmtree(stack.hosts[0].folder / "state/instances" / made[0].id)


def test_base_is_made_by_another_host(
    stack: Testbed,
    guest_image: guest.GuestImage,
    servers: Servers,
    flavor: Flavor,
    other_host: ComputeHost,
    doomed: Doomed,
    tell: Tell,
) -> None:
    """The first host dies when it has copied the bytes but made no snap."""
    image = servers.upload("killed", guest_image.qcow2, "qcow2", "file")
    asked: list[Server] = []
    waited_seconds: list[float] = []

    def create() -> None:
        asked.append(
            servers.create("dies", image, flavor, availability_zone=FIRST)
        )

    def boot_elsewhere() -> None:
        begin = time.monotonic()
        server = servers.boot(
            "lives", image, flavor, availability_zone="nova:host2"
        )
        waited_seconds.append(time.monotonic() - begin)
        tell(f"booted elsewhere on a new base in {waited_seconds[0]:.1f} s")
        stack.wait_for_guest(server)

    # The first four changes are the spawn's entry, the lease, the base's entry
    # and the image; the fifth is the image's snap.
    died = doomed.die_at(
        5,
        create,
        lambda: servers.get(asked[0]).status == "ACTIVE",
        boot_elsewhere,
    )
    assert died
    assert waited_seconds[0] < TAKE_OVER_SECONDS
    found = settled(servers, asked[0])
    assert found.status == "ERROR"
    (base,) = (
        base
        for base in rbd_view.bases(stack.cluster, "vms").values()
        if base.metadata.get("nova.image") == image.id
    )
    assert rbd_view.snaps(stack.cluster, "vms", base.name) == ["base"]
    servers.delete_all()
    wait_until_empty(stack)
    assert not stack.cached_images(stack.hosts[0])


def test_snapshot(
    stack: Testbed,
    images: Images,
    servers: Servers,
    flavor: Flavor,
    doomed: Doomed,
    tell: Tell,
) -> None:
    connection = stack.openstack.connection()
    server = servers.boot("snapshot", images.raw, flavor)
    kept = 0

    def detached(name: str) -> bool:
        view = rbd_view.images(stack.cluster, "snapshots").get(name)
        return view is not None and view.parent is None

    def left() -> list[str]:
        disk = f"{server.id}_disk"
        return [
            *rbd_view.left(stack.cluster, "snapshots"),
            *rbd_view.snaps(stack.cluster, "vms", disk),
        ]

    def snapshot(step: int) -> bool:
        nonlocal kept
        made: list[str] = []

        def create() -> None:
            made.append(
                connection.compute.create_server_image(
                    server.id, f"snapshot-{step}"
                ).id
            )

        died = doomed.die_at(
            step, create, lambda: detached(f"snapshot_{made[0]}")
        )
        assert settled(servers, server).status == "ACTIVE"
        image = connection.image.get_image(made[0])
        name = f"snapshot_{image.id}"
        if image.status == "active":
            # Glance has it, so it is kept, and detached after the restart.
            kept += 1
            wait_for(f"{name} is detached", lambda: detached(name), 60, 0.5)
        else:
            assert died
        servers.delete_image(image)
        wait_until_gone("no snapshot is left", left, SETTLE_SECONDS)
        return died

    steps = at_each_step(snapshot)
    assert 0 < kept < steps
    tell(f"snapshot: killed at each of {steps} changes, {kept - 1} kept")


def test_resize(
    stack: Testbed,
    images: Images,
    servers: Servers,
    flavor: Flavor,
    doomed: Doomed,
    tell: Tell,
) -> None:
    nova = stack.openstack.connection().compute
    bigger = servers.flavor("bigger", disk_gib=2)
    # Sizes and snaps of disks from which a guest has booted.
    proved = set()

    def resize(step: int) -> bool:
        server = servers.boot(f"resize-{step}", images.raw, flavor)
        died = doomed.die_at(
            step,
            lambda: nova.resize_server(server, bigger.id),
            lambda: servers.get(server).status == "VERIFY_RESIZE",
        )
        found = servers.get(server)
        disk = rbd_view.images(stack.cluster, "vms")[f"{found.id}_disk"]
        assert disk.size_bytes in (1 << 30, 2 << 30)
        if died:
            # As an operator does. The disk is there, and the server starts.
            nova.reset_server_state(server, "active")
            nova.reboot_server(server, "HARD")
            servers.wait(server)
            snaps = rbd_view.snaps(stack.cluster, "vms", disk.name)
            left = (disk.size_bytes, *snaps)
            if left not in proved:
                stack.wait_for_guest(server)
                proved.add(left)
        servers.delete(found)
        wait_until_empty(stack)
        # Nova leaves the renamed folder behind when a resize on the same host
        # was interrupted (26 to 34, delete_instance_files).
        for suffix in ("_resize", "_del"):
            folder = stack.hosts[0].folder / "state/instances"
            shutil.rmtree(folder / f"{server.id}{suffix}", ignore_errors=True)
        return died

    tell(f"resize: killed at each of {at_each_step(resize)} changes")


def test_delete(
    stack: Testbed,
    images: Images,
    servers: Servers,
    flavor: Flavor,
    doomed: Doomed,
    tell: Tell,
) -> None:
    nova = stack.openstack.connection().compute

    def is_empty() -> bool:
        return not rbd_view.left(stack.cluster, "vms")

    def delete(step: int) -> bool:
        server = servers.boot(f"delete-{step}", images.raw, flavor)
        died = doomed.die_at(
            step, lambda: nova.delete_server(server.id), is_empty
        )
        servers.delete(server)
        wait_until_empty(stack)
        return died

    tell(f"delete: killed at each of {at_each_step(delete)} changes")
