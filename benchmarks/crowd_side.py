# SPDX-License-Identifier: Apache-2.0

"""Many compute hosts in one process, for Ceph as many as they say.

Each host is a thread that has a host name of its own, in its own UTS
namespace, and a connection of its own. A thousand processes of Nova would not
fit into the machine.
"""

import concurrent.futures
import contextlib
import ctypes
import dataclasses
import random
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from benchmarks.nova_side import NovaSide

_NEW_UTS = 0x04000000  # CLONE_NEWUTS of sched.h
CONNECTING_AT_ONCE = 4


class CrowdSide(NovaSide):
    """NovaSide many times, with this backend."""

    def __init__(self, side: str, **how: Any) -> None:
        super().__init__("plugin", **how)
        self._members: list[_Member] = []
        _give_each_host_its_own()

    def gather(self, count: int) -> None:
        """Have so many hosts, all connected."""
        from nova_rbd_backend.virt import edge

        settings = edge.settings()
        first = len(self._members)
        new = [
            _Member(
                f"{self._folder.name}-{number}",
                # So that it has its own connection (ceph.cluster.connect).
                dataclasses.replace(
                    settings,
                    connect_timeout_seconds=(
                        settings.connect_timeout_seconds + 1 + number
                    ),
                ),
            )
            for number in range(first, count)
        ]
        self._members += new
        with concurrent.futures.ThreadPoolExecutor(CONNECTING_AT_ONCE) as few:
            for _ in few.map(
                lambda member: member.submit(member.store.start).result(), new
            ):
                pass

    def ask_for_base(
        self, count: int, name: str, path: str, seconds: float, at: float
    ) -> list[dict[str, Any]]:
        """Have so many hosts ask for one base, in the same second.

        :param path: the raw file that the one that makes it downloads
        :param seconds: what the download takes
        :param at: when that second begins
        :returns: for each host: when it had the base, and whether it made it
        """
        done = [
            member.submit(_ensure, name, path, seconds, at + random.random())
            for member in self._members[:count]
        ]
        return [each.result() for each in done]

    def live(
        self, count: int, image: dict[str, Any], at: float, seconds: float
    ) -> None:
        """Do the periodic work of all hosts, and so many boots and deletes.

        Each at a moment of its own within this time.
        """
        self.know(**image)
        done = [
            member.submit(self._periodically, at + random.uniform(0, seconds))
            for member in self._members
        ]
        done += [
            random.choice(self._members).submit(
                self._boot_and_delete,
                image["image_id"],
                at + random.uniform(0, seconds),
            )
            for _ in range(count)
        ]
        for each in done:
            each.result()

    def _periodically(self, at: float) -> None:
        _sleep_until(at)
        for work in self.periodic_work():
            work._do()

    def _boot_and_delete(self, image: str, at: float) -> None:
        from nova_rbd_backend.virt import edge
        from nova_rbd_backend.virt.background import turns

        _sleep_until(at)
        instance = str(uuid.uuid4())
        self.boot(instance, image)
        self.delete(instance)
        # What the purger would do in the background.
        edge.store().purge(turns.seconds())


class _Member:
    """One host."""

    def __init__(self, name: str, settings: Any) -> None:
        from nova_rbd_backend.storage.store import Store

        self.settings = settings
        self.store = Store(settings)
        self._name = name
        self._thread = concurrent.futures.ThreadPoolExecutor(1, name, self._be)

    def _be(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_NEW_UTS):
            raise OSError(ctypes.get_errno(), "unshare")
        socket.sethostname(self._name)
        _here.member = self

    def submit(
        self, work: Any, *arguments: Any
    ) -> concurrent.futures.Future[Any]:
        return self._thread.submit(work, *arguments)


_here = threading.local()


def _give_each_host_its_own() -> None:
    """Replace what is one for each process by one for each member."""
    from nova_rbd_backend.storage import process
    from nova_rbd_backend.virt import edge
    from nova_rbd_backend.virt.background import worker
    from nova_rbd_backend.virt.boot import bases, fetch

    settings, store = edge.settings, edge.store

    def own(name: str, of_process: Any) -> Any:
        member = getattr(_here, "member", None)
        return getattr(member, name) if member else of_process()

    edge.settings = lambda: own("settings", settings)
    edge.store = lambda: own("store", store)
    # Remembers the host's name.
    process.of_pid = process.of_pid.__wrapped__
    # The background threads would belong to no member.
    worker.Background.start = lambda self: None
    bases.lockutils = _NoLocks
    fetch.slot = _free_slot


class _NoLocks:
    """In place of oslo's locks: no two threads here are of the same host."""

    @staticmethod
    def lock(_name: str) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


@contextlib.contextmanager
def _free_slot(_limit_seconds: float | None = None) -> Iterator[bool]:
    yield True


def _sleep_until(at: float) -> None:
    time.sleep(max(0.0, at - time.monotonic()))


def _ensure(name: str, path: str, seconds: float, at: float) -> dict[str, Any]:
    from nova_rbd_backend.virt import edge
    from nova_rbd_backend.virt.boot import bases
    from nova_rbd_backend.virt.boot.glance_image import WantedBase

    def download(target: str) -> None:
        time.sleep(seconds)
        shutil.copyfile(path, target)

    _sleep_until(at)
    images = bases.BaseImages(edge.store().pool())
    found = images.ensure(
        WantedBase(name, {}, image_id=str(uuid.uuid4())),
        prepare=download,
        verify=lambda _bytes: None,
    )
    return {"end": time.monotonic(), "made": found.made}
