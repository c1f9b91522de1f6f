# SPDX-License-Identifier: Apache-2.0

"""One run: actions and faults for some time, then the end and the checks."""

import contextlib
import dataclasses
import pathlib
import threading
import time
import urllib.error
from collections.abc import Callable, Iterator

import rbd

from tests.soak import actions, complaints, disasters, plan
from tests.soak.burden import Burden, grown, threads_by_name
from tests.soak.counters import Listener
from tests.soak.disasters import Disasters
from tests.soak.ending import Ending
from tests.soak.fleet import Fleet
from tests.soak.journey import Journey
from tests.soak.lanes import Lane, Stock
from tests.soak.requests_of_users import User
from tests.soak.writers import Writers
from tests.testbed.conf_file import Conf
from tests.testbed.openstack.volumes import Volumes
from tests.testbed.whole import Testbed

#: For the nova-computes of a run: periods of minutes instead of an hour.
PERIODS: Conf = {
    # What is left of servers that were deleted while their host was away is
    # deleted in this period.
    "DEFAULT": {"instance_delete_interval": 30},
    # What is left of spawns that have failed is settled in this one.
    "image_cache": {"manager_interval": 60},
    # The default: no time-out without a fault, also on a busy machine.
    "nova_rbd": {"operation_timeout_seconds": None},
}
VOLUMES = 2
# A lane may wait for an answer of the API, a fault for a daemon's start.
JOIN_SECONDS = 180


@dataclasses.dataclass
class _Before:
    """What each nova-compute was when the run began."""

    burden: dict[str, Burden]
    logged: dict[str, int]


class Soak:
    """A run on a testbed that is up; both of its hosts must take servers.

    :param images: ids in Glance of the guest as raw image and as qcow2
    :param log: the file to which it writes what happens
    """

    def __init__(
        self,
        testbed: Testbed,
        seed: int,
        seconds: float,
        images: tuple[str, str],
        log: pathlib.Path,
    ):
        self._testbed = testbed
        self._seed = seed
        self._seconds = seconds
        self._images = images
        self.journey = Journey(log)
        self._end = threading.Event()
        self._fleet = Fleet()
        self._listener = Listener(testbed.hosts, self.journey)
        self._volumes = Volumes(
            testbed.cluster, testbed.openstack.site.url("volume")
        )
        self._growth: list[str] = []
        self._checked = False

    def run(self) -> None:
        """Do it all; the violations are in the journey.

        On an interrupt, everything of it has ended when this raises.
        """
        before = self._noted()
        stock = self._stock()
        crew = list(self._crew(stock))
        watched = threading.Event()
        listener = threading.Thread(
            target=self._guarded(self._listener.run),
            args=(watched,),
            name="listener",
        )
        try:
            for thread in [listener, *crew]:
                thread.start()
            self._pass_time()
        finally:
            self._end.set()
            for thread in crew:
                thread.join(JOIN_SECONDS)
            watched.set()
            listener.join(JOIN_SECONDS)
        self.journey.note("time is over")
        self._finish(before)

    def report(self) -> str:
        """Return seed, counts and violations, for people."""
        lines = [
            f"seed {self._seed}, {self._seconds / 60:g} minutes, "
            f"log {self.journey.path}",
            "",
            self.journey.table(),
            "",
            *self._growth,
            "",
        ]
        if self.journey.violations:
            lines.append(f"{len(self.journey.violations)} VIOLATIONS:")
            lines += [f"- {each}" for each in self.journey.violations]
        elif self._checked:
            lines.append("no violation")
        if not self._checked:
            lines.append("It has not come to its end: not all was checked.")
        return "\n".join(lines)

    # -- while it goes on -----------------------------------------------------

    def _crew(self, stock: Stock) -> Iterator[threading.Thread]:
        """The threads that act, break and watch, not yet started."""
        for number in range(plan.lanes(self._seed)):
            lane = Lane(
                User(self._testbed),
                self._fleet,
                stock,
                self._listener,
                self.journey,
                self._end,
            )
            steps = plan.steps(self._seed, number)
            yield self._thread(f"lane-{number}", lane.run, steps)
        sides = {"ceph": plan.CEPH_FAULTS, "hosts": plan.HOST_FAULTS}
        for side, kinds in sides.items():
            breaker = Disasters(
                self._testbed,
                User(self._testbed),
                self._volumes,
                self.journey,
                self._end,
            )
            faults = plan.faults(self._seed, kinds)
            yield self._thread(side, breaker.run, faults)
        writers = Writers(self._testbed, User(self._testbed), self.journey)
        yield self._thread("writers", writers.run, self._end)

    def _thread(
        self, name: str, work: Callable[..., None], *args: object
    ) -> threading.Thread:
        return threading.Thread(
            target=self._guarded(work), args=args, name=name
        )

    def _guarded(self, work: Callable[..., None]) -> Callable[..., None]:
        """Make an error of this program a violation: the run proves less."""

        def run(*args: object) -> None:
            try:
                work(*args)
            except BaseException as error:
                self.journey.violation(f"the soak itself failed: {error!r}")
                raise

        return run

    def _pass_time(self) -> None:
        begun = time.monotonic()
        told_minutes = 0
        while (passed := time.monotonic() - begun) < self._seconds:
            # Short, because a signal is handled between two waits.
            self._end.wait(min(self._seconds - passed, 1))
            if passed // 60 > told_minutes:
                told_minutes = int(passed // 60)
                print(
                    f"minute {told_minutes}: {self.journey.counts()}",
                    flush=True,
                )
        print("time is over; heal, delete all, and check", flush=True)

    # -- begin and end --------------------------------------------------------

    def _stock(self) -> Stock:
        servers = self._testbed.servers()
        for each in self._testbed.hosts:
            self._volumes.give_secret(each)
        return Stock(
            self._images,
            {
                name: servers.flavor(name, **sizes).id
                for name, sizes in actions.FLAVORS.items()
            },
            tuple(self._volumes.blank().id for _ in range(VOLUMES)),
        )

    def _finish(self, before: _Before) -> None:
        disasters.heal(self._testbed, self._volumes, self.journey)
        self.journey.note("healed")
        user = User(self._testbed)
        Ending(self._testbed, user, self._fleet, self.journey).run()
        # A volume may stay attached in Cinder when Nova died meanwhile, and a
        # guest that should be gone, which has been told of, may have it open.
        with contextlib.suppress(
            *(urllib.error.HTTPError, rbd.ImageNotFound, rbd.ImageBusy)
        ):
            self._volumes.remove_all()
        self._judge(before)
        self._checked = True

    def _noted(self) -> _Before:
        return _Before(
            {
                each.name: Burden.of(self._pid(each.name))
                for each in self._testbed.hosts
            },
            {
                each.name: self._testbed.compute(each).log.stat().st_size
                for each in self._testbed.hosts
            },
        )

    def _judge(self, before: _Before) -> None:
        """Look at the logs of each nova-compute, and at what it costs."""
        met = self._fleet.met()
        for each in self._testbed.hosts:
            log = self._testbed.compute(each).log
            for found in complaints.judge(
                log, before.logged[each.name], self.journey, met
            ):
                self.journey.violation(f"{each.name} logged: {found}")
            first = before.burden[each.name]
            last = Burden.of(self._pid(each.name))
            names = threads_by_name(last.pid)
            self.journey.note(f"threads of {each.name}:", names)
            self._growth.append(f"{each.name}: {first}; then {last}")
            for grew in grown(first, last):
                self.journey.violation(f"nova-compute of {each.name}: {grew}")

    def _pid(self, name: str) -> int:
        host = next(h for h in self._testbed.hosts if h.name == name)
        pid = self._testbed.compute(host).process.pid()
        assert pid, f"nova-compute of {name} does not run"
        return pid
